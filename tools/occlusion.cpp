#include "tools/occlusion.h"

#include "core/error.h"

#include <algorithm>

namespace ermoe {

std::vector<double> occlude(const CubeGrid& grid, std::span<const float> volume, std::span<const float> cover, int64_t batch,
                            const PredictVolumes& predict) {
  const std::vector<int64_t> cubes = cubes_of_voxels(grid);
  check(volume.size() == cubes.size() && cover.size() == cubes.size() && batch > 0, "[occlusion] {} and {} voxels for {}", volume.size(),
        cover.size(), cubes.size());
  std::vector<std::vector<size_t>> voxels(static_cast<size_t>(grid.count()));
  for (size_t v = 0; v < cubes.size(); ++v) voxels[static_cast<size_t>(cubes[v])].push_back(v);
  std::vector<double> change(voxels.size());
  std::vector<size_t> touched;
  for (size_t cube = 0; cube < voxels.size(); ++cube)
    if (std::ranges::any_of(voxels[cube], [&](size_t v) { return volume[v] != cover[v]; })) touched.push_back(cube);
  const double whole = predict({volume.begin(), volume.end()}, 1).at(0);
  for (size_t first = 0; first < touched.size(); first += static_cast<size_t>(batch)) {
    const size_t count = std::min(static_cast<size_t>(batch), touched.size() - first);
    std::vector<float> copies;
    copies.reserve(count * volume.size());
    for (size_t c = 0; c < count; ++c) {
      copies.insert(copies.end(), volume.begin(), volume.end());
      float* const copy = copies.data() + c * volume.size();
      for (const size_t v : voxels[touched[first + c]]) copy[v] = cover[v];
    }
    const std::vector<double> said = predict(copies, static_cast<int64_t>(count));
    for (size_t c = 0; c < count; ++c) change[touched[first + c]] = said.at(c) - whole;
  }
  return change;
}

}  // namespace ermoe
