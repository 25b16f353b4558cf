// Rigid and affine alignment of one volume to another, by intensities alone. Start: the centres of the foregrounds and a coarse search of
// rotations; then from coarse to fine, each level climbed by steps of Gauss and Newton. Read next: data/align_measure.h, data/align.cpp.
#pragma once

#include "data/volume.h"

#include <string>
#include <vector>

namespace ermoe {

/// 6, 7 or 12 degrees of freedom.
enum class AlignModel { rigid, similarity, affine };

/// correlation: where bright means bright in both (two T1). mutual_information: any relation of the intensities.
enum class AlignMeasure { correlation, mutual_information };

struct AlignOptions {
  AlignModel model = AlignModel::affine;
  AlignMeasure measure = AlignMeasure::mutual_information;
  std::vector<double> levels = {8, 4, 2};  // mm, falling: to what both volumes are smoothed and thinned out in turn
};

struct Alignment {
  Affine to_moving;   // mm of the fixed volume's world -> mm of the moving volume's world, where the same anatomy lies
  double value = 0;   // of the measure at the finest level: correlation from -1 to 1, or mutual information in nats
  int64_t steps = 0;  // taken, over all levels
};

/// What makes a volume impossible to align ("holds 12 values that are not finite"), or "".
std::string alignment_fault(const Volume& volume);

/// Finds where the anatomy of `fixed` lies in `moving`. Finds its way from rotations of up to 30 degrees and any shift; depends on its
/// arguments alone, not on the number of threads. Throws `Error` where `alignment_fault` finds something, and where levels do not fall.
Alignment align(const Volume& moving, const Volume& fixed, const AlignOptions& options);

/// The moving volume as if it lay in the fixed one's world: the same voxels with another affine.
Grid aligned_grid(const Grid& moving, const Affine& to_moving);

}  // namespace ermoe
