#include "tools/region_shares.h"

#include "core/error.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

constexpr int64_t last_label = 65535;

}  // namespace

std::array<int64_t, 3> CubeGrid::cubes() const {
  std::array<int64_t, 3> n{};
  for (size_t a = 0; a < 3; ++a) n[a] = (voxels[a] + side - 1) / side;
  return n;
}

int64_t CubeGrid::count() const {
  const auto [nx, ny, nz] = cubes();
  return nx * ny * nz;
}

int64_t CubeGrid::cube_of(int64_t i, int64_t j, int64_t k) const {
  const auto [nx, ny, nz] = cubes();
  return i / side + nx * (j / side + ny * (k / side));
}

Point3 CubeGrid::middle_of(int64_t cube) const {
  const auto [nx, ny, nz] = cubes();
  const std::array<int64_t, 3> at = {cube % nx, cube / nx % ny, cube / (nx * ny)};
  Point3 middle{};
  for (size_t a = 0; a < 3; ++a) {
    const int64_t begin = at[a] * side, end = std::min(begin + side, voxels[a]);
    middle[a] = static_cast<double>(begin + end - voxels[a]) / 2;
  }
  return middle;
}

std::vector<int64_t> cubes_of_voxels(const CubeGrid& grid) {
  std::vector<int64_t> cubes;
  cubes.reserve(static_cast<size_t>(grid.voxels[0] * grid.voxels[1] * grid.voxels[2]));
  for (int64_t k = 0; k < grid.voxels[2]; ++k)
    for (int64_t j = 0; j < grid.voxels[1]; ++j)
      for (int64_t i = 0; i < grid.voxels[0]; ++i) cubes.push_back(grid.cube_of(i, j, k));
  return cubes;
}

void add_labels(std::span<const float> map, const std::string& subject, std::vector<int64_t>& labels) {
  std::vector<bool> there(last_label + 1);
  for (const int64_t label : labels) there[static_cast<size_t>(label)] = true;
  for (const float v : map) {
    const float label = std::round(v);
    check_input(label >= 0 && label <= static_cast<float>(last_label),
                "subject {}: its map of regions holds {}, and labels are from 0 to {}", subject, v, last_label);
    there[static_cast<size_t>(label)] = true;
  }
  labels.clear();
  for (int64_t label = 0; label <= last_label; ++label)
    if (there[static_cast<size_t>(label)]) labels.push_back(label);
}

std::vector<double> region_voxels(const CubeGrid& grid, std::span<const float> map, std::span<const int64_t> labels) {
  const std::vector<int64_t> cubes = cubes_of_voxels(grid);
  check(map.size() == cubes.size() && !labels.empty(), "[regions] a map of {} voxels for {}", map.size(), cubes.size());
  std::vector<size_t> column(static_cast<size_t>(labels.back()) + 1);
  for (size_t r = 0; r < labels.size(); ++r) column[static_cast<size_t>(labels[r])] = r;
  std::vector<double> counts(static_cast<size_t>(grid.count()) * labels.size());
  for (size_t v = 0; v < map.size(); ++v) {
    const auto label = static_cast<size_t>(std::round(map[v]));
    counts[static_cast<size_t>(cubes[v]) * labels.size() + column[label]] += 1;
  }
  return counts;
}

Grid centred_grid(const std::array<int64_t, 3>& voxels, double spacing) {
  Grid grid;
  grid.size = voxels;
  for (size_t a = 0; a < 3; ++a) {
    grid.to_world.rows[a][a] = spacing;
    grid.to_world.rows[a][3] = -spacing * static_cast<double>(voxels[a] - 1) / 2;
  }
  return grid;
}

Volume spread_over_voxels(const CubeGrid& grid, std::span<const double> values, double spacing) {
  check(std::ssize(values) == grid.count(), "[regions] {} values for {} cubes", values.size(), grid.count());
  Volume volume{centred_grid(grid.voxels, spacing), {}};
  for (const int64_t cube : cubes_of_voxels(grid)) volume.values.push_back(static_cast<float>(values[static_cast<size_t>(cube)]));
  return volume;
}

}  // namespace ermoe
