// What a prediction rests on: parts of a volume are covered up one after another, and the prediction's change is taken (Zeiler and Fergus,
// ECCV 2014). What covers is the training volumes' mean, so that a covered place says nothing of a subject and yet looks like a brain.
// Read first: tools/region_shares.h; next: tools/attribution.h.
#pragma once

#include "tools/region_shares.h"

#include <functional>
#include <span>
#include <vector>

namespace ermoe {

/// What is said of `count` volumes that stand one after another.
using PredictVolumes = std::function<std::vector<double>(const std::vector<float>& volumes, int64_t count)>;

/// By how much the prediction changes where each part in turn is covered by the same voxels of `cover` (as many as the volume's):
/// (parts) covered minus uncovered. A part is a set of voxels' indices. Copies come to `predict` in batches of up to `batch`; parts that
/// covering would leave as they are do not, and change nothing.
std::vector<double> occlude(std::span<const std::vector<size_t>> parts, std::span<const float> volume, std::span<const float> cover,
                            int64_t batch, const PredictVolumes& predict);

/// The voxels of each cube.
std::vector<std::vector<size_t>> voxels_of_cubes(const CubeGrid& grid);

/// The voxels of each of these labels, in their order. `map`: the label of each voxel.
std::vector<std::vector<size_t>> voxels_of_labels(std::span<const float> map, std::span<const int64_t> labels);

}  // namespace ermoe
