// A window of voxels cut into cubes (a model's patches, or places that are covered up), and which regions of a map lie in each.
// Read next: tools/specialisation.h, tools/attribution.h.
#pragma once

#include "data/volume.h"

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace ermoe {

/// Cubes and voxels are both counted with x fastest, as tokens and tensors are. Cubes at the far ends may be cut off.
struct CubeGrid {
  std::array<int64_t, 3> voxels{};  // nx, ny, nz
  int64_t side = 1;                 // voxels

  /// Along x, y and z.
  std::array<int64_t, 3> cubes() const;
  int64_t count() const;
  /// The cube of voxel (i, j, k).
  int64_t cube_of(int64_t i, int64_t j, int64_t k) const;
  /// Its middle in voxels from the window's middle.
  Point3 middle_of(int64_t cube) const;
};

/// The cube of every voxel, in the voxels' order.
std::vector<int64_t> cubes_of_voxels(const CubeGrid& grid);

/// Adds the labels of a map, rounded, to an ascending list. Throws `InputError` that names `subject` for what is none: labels are from 0,
/// the background, to 65535.
void add_labels(std::span<const float> map, const std::string& subject, std::vector<int64_t>& labels);

/// Voxels (cubes, R) of each of the R `labels`, which are ascending and hold all of the map, in each cube.
std::vector<double> region_voxels(const CubeGrid& grid, std::span<const float> map, std::span<const int64_t> labels);

/// In RAS with voxels of `spacing` mm, and the middle of the window at (0, 0, 0).
Grid centred_grid(const std::array<int64_t, 3>& voxels, double spacing);

/// A value a cube, written on its voxels.
Volume spread_over_voxels(const CubeGrid& grid, std::span<const double> values, double spacing);

}  // namespace ermoe
