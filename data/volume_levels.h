// Coarser and coarser copies of a volume, and what of it is not background: what alignment starts from.
// Read next: data/align_samples.h.
#pragma once

#include "data/volume.h"

#include <span>
#include <vector>

namespace ermoe {

/// For each of `spacings_mm` (largest first) a copy smoothed to that width (full width at half maximum) and thinned out to voxels of at
/// most that size; a volume that is coarser already stays as it is. Each is made from the next finer one.
std::vector<Volume> coarser_copies(const Volume& volume, std::span<const double> spacings_mm);

/// The threshold between background and the rest: Otsu, "A threshold selection method from gray-level histograms", 1979, over 256
/// bins up to the 99.5th percentile (bright vessels and fat would draw it upwards), halved: dark tissue belongs to the head.
float foreground_threshold(const Volume& volume);

/// The part of a volume above a threshold.
struct Foreground {
  Point3 centre{};                       // mm, mean of its voxels' places
  std::array<int64_t, 3> low{}, high{};  // the voxels of its corners, both within
  int64_t voxels = 0;
};
Foreground find_foreground(const Volume& volume, float threshold);

/// True where (nearly) all voxels on the surface of the volume have its smallest value: then what lies beyond is known to be empty.
bool has_empty_border(const Volume& volume);

}  // namespace ermoe
