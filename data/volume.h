// A picture in three dimensions and where its voxels lie in space. Read next: data/nifti.h (files), data/volume_grid.h (bringing
// volumes to one grid).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ermoe {

using Point3 = std::array<double, 3>;

/// x -> A x + b, as three rows (A | b).
struct Affine {
  std::array<std::array<double, 4>, 3> rows{{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}}};

  Point3 operator()(const Point3& x) const;
  /// This one after `first`.
  Affine after(const Affine& first) const;
  double determinant() const;
  /// Throws `Error` where there is none.
  Affine inverse() const;
  bool operator==(const Affine&) const = default;
};

/// Size of a volume and the place of its voxels.
struct Grid {
  std::array<int64_t, 3> size{};  // nx, ny, nz
  Affine to_world;                // voxel (i, j, k), whole numbers at voxels' middles, -> mm: x to the right, y to the front, z up (RAS+)

  int64_t voxels() const { return size[0] * size[1] * size[2]; }
  /// Millimetres between voxels along each axis.
  Point3 spacing() const;
  bool operator==(const Grid&) const = default;
};

/// Intensities, or numbers of regions. Voxel (i, j, k) is values[i + nx (j + ny k)]: as a tensor, of shape (nz, ny, nx).
struct Volume {
  Grid grid;
  std::vector<float> values;

  float at(int64_t i, int64_t j, int64_t k) const { return values[static_cast<size_t>(i + grid.size[0] * (j + grid.size[1] * k))]; }
  float& at(int64_t i, int64_t j, int64_t k) { return values[static_cast<size_t>(i + grid.size[0] * (j + grid.size[1] * k))]; }
};

}  // namespace ermoe
