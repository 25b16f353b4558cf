#include "tools/occlusion.h"

#include "core/error.h"

#include <algorithm>
#include <cmath>

namespace ermoe {

std::vector<std::vector<size_t>> voxels_of_cubes(const CubeGrid& grid) {
  const std::vector<int64_t> cubes = cubes_of_voxels(grid);
  std::vector<std::vector<size_t>> voxels(static_cast<size_t>(grid.count()));
  for (size_t v = 0; v < cubes.size(); ++v) voxels[static_cast<size_t>(cubes[v])].push_back(v);
  return voxels;
}

std::vector<std::vector<size_t>> voxels_of_labels(std::span<const float> map, std::span<const int64_t> labels) {
  std::vector<std::vector<size_t>> voxels(labels.size());
  for (size_t v = 0; v < map.size(); ++v)
    if (const auto found = std::ranges::find(labels, std::llround(map[v])); found != labels.end())
      voxels[static_cast<size_t>(found - labels.begin())].push_back(v);
  return voxels;
}

std::vector<double> occlude(std::span<const std::vector<size_t>> parts, std::span<const float> volume, std::span<const float> cover,
                            int64_t batch, const PredictVolumes& predict) {
  check(volume.size() == cover.size() && batch > 0, "[occlusion] {} and {} voxels, {} at a time", volume.size(), cover.size(), batch);
  std::vector<double> change(parts.size());
  std::vector<size_t> touched;
  for (size_t p = 0; p < parts.size(); ++p)
    if (std::ranges::any_of(parts[p], [&](size_t v) { return volume[v] != cover[v]; })) touched.push_back(p);
  const double whole = predict({volume.begin(), volume.end()}, 1).at(0);
  for (size_t first = 0; first < touched.size(); first += static_cast<size_t>(batch)) {
    const size_t count = std::min(static_cast<size_t>(batch), touched.size() - first);
    std::vector<float> copies;
    copies.reserve(count * volume.size());
    for (size_t c = 0; c < count; ++c) {
      copies.insert(copies.end(), volume.begin(), volume.end());
      float* const copy = copies.data() + c * volume.size();
      for (const size_t v : parts[touched[first + c]]) copy[v] = cover[v];
    }
    const std::vector<double> said = predict(copies, static_cast<int64_t>(count));
    for (size_t c = 0; c < count; ++c) change[touched[first + c]] = said.at(c) - whole;
  }
  return change;
}

}  // namespace ermoe
