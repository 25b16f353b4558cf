// See data/volume_grid.h.
#include "data/volume_grid.h"

#include "core/error.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

/// Which world axis each voxel axis runs along, and whether it runs backwards.
struct Axes {
  std::array<size_t, 3> world{};
  std::array<bool, 3> backward{};
};

/// The rotation (or reflection) nearest to a grid's axes: the polar factor of the directions, by Newton's iteration (Higham 1986).
Affine nearest_rotation(const Grid& grid) {
  const Point3 mm = grid.spacing();
  Affine q;
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 3; ++c) q.rows[r][c] = grid.to_world.rows[r][c] / mm[c];
  for (int step = 0; step < 60; ++step) {
    const Affine inverse = q.inverse();
    double change = 0;
    Affine next;
    for (size_t r = 0; r < 3; ++r) {
      for (size_t c = 0; c < 3; ++c) {
        next.rows[r][c] = (q.rows[r][c] + inverse.rows[c][r]) / 2;
        change = std::max(change, std::abs(next.rows[r][c] - q.rows[r][c]));
      }
    }
    q = next;
    if (change < 1e-15) break;
  }
  return q;
}

/// Of the six ways to give each voxel axis a world axis of its own, the one along which the axes run most, taken together.
Axes closest_axes(const Grid& grid) {
  const Affine rotation = nearest_rotation(grid);
  std::array<size_t, 3> order{0, 1, 2};
  Axes axes;
  double best = -1;
  do {
    double along = 0;
    for (size_t a = 0; a < 3; ++a) along += std::abs(rotation.rows[order[a]][a]);
    if (along > best) axes.world = order;
    best = std::max(best, along);
  } while (std::ranges::next_permutation(order).found);
  for (size_t a = 0; a < 3; ++a) axes.backward[a] = rotation.rows[axes.world[a]][a] < 0;
  return axes;
}

/// Of a position in voxels: whole numbers where rounding alone keeps it from them, so that a voxel that lies on another one is copied.
double settle(double x) {
  constexpr double rounding = 1e-6;
  const double whole = std::round(x);
  return std::abs(x - whole) < rounding ? whole : x;
}

/// What `from`'s voxel positions are in `to`'s.
Affine between(const Grid& from, const Grid& to) { return to.to_world.inverse().after(from.to_world); }

/// The two voxels beside a position along one axis, with the weight of the second.
struct Beside {
  int64_t low = 0, high = 0;
  double weight = 0;
};

Beside beside(double x, int64_t size) {
  const double low = std::floor(x);
  const auto i = static_cast<int64_t>(low);
  return {std::clamp<int64_t>(i, 0, size - 1), std::clamp<int64_t>(i + 1, 0, size - 1), x - low};
}

double mix(double a, double b, double weight) {
  // Not a sum of products: a voxel of no weight must not count even where it is not finite.
  return weight == 0 ? a : a + (b - a) * weight;
}

double linear_at(const Volume& volume, const Point3& p) {
  const auto& size = volume.grid.size;
  const Beside x = beside(p[0], size[0]), y = beside(p[1], size[1]), z = beside(p[2], size[2]);
  const auto row = [&](int64_t j, int64_t k) { return mix(double{volume.at(x.low, j, k)}, double{volume.at(x.high, j, k)}, x.weight); };
  const auto plane = [&](int64_t k) { return mix(row(y.low, k), y.weight == 0 ? 0 : row(y.high, k), y.weight); };
  return mix(plane(z.low), z.weight == 0 ? 0 : plane(z.high), z.weight);
}

float nearest_at(const Volume& volume, const Point3& p) {
  std::array<int64_t, 3> at{};
  for (size_t a = 0; a < 3; ++a) at[a] = std::clamp<int64_t>(static_cast<int64_t>(std::floor(p[a] + 0.5)), 0, volume.grid.size[a] - 1);
  return volume.at(at[0], at[1], at[2]);
}

bool inside(const Grid& grid, const Point3& p) {
  for (size_t a = 0; a < 3; ++a)
    if (!(p[a] >= -0.5 && p[a] <= static_cast<double>(grid.size[a]) - 0.5)) return false;
  return true;
}

/// How much a volume must be smoothed, in voxels, before it is read at steps of `steps`.
Point3 blur_for(const Affine& steps) {
  Point3 sigma{};
  for (size_t r = 0; r < 3; ++r) {
    const double f = std::hypot(steps.rows[r][0], steps.rows[r][1], steps.rows[r][2]);
    if (f > 1.01) sigma[r] = std::sqrt((f * f - 1) / (8 * std::log(2.0)));
  }
  return sigma;
}

Volume sample(const Volume& volume, const Grid& grid, Interpolation how, float outside) {
  const Affine place = between(grid, volume.grid);
  Volume result{grid, std::vector<float>(static_cast<size_t>(grid.voxels()), outside)};
  float* to = result.values.data();
  for (int64_t k = 0; k < grid.size[2]; ++k) {
    for (int64_t j = 0; j < grid.size[1]; ++j) {
      for (int64_t i = 0; i < grid.size[0]; ++i, ++to) {
        Point3 p = place({static_cast<double>(i), static_cast<double>(j), static_cast<double>(k)});
        for (double& x : p) x = settle(x);
        if (inside(volume.grid, p)) *to = how == Interpolation::linear ? static_cast<float>(linear_at(volume, p)) : nearest_at(volume, p);
      }
    }
  }
  return result;
}

}  // namespace

std::string orientation_text(const Grid& grid) {
  const Axes axes = closest_axes(grid);
  std::string text;
  for (size_t a = 0; a < 3; ++a) text += axes.backward[a] ? "LPI"[axes.world[a]] : "RAS"[axes.world[a]];
  return text;
}

Grid to_ras(const Grid& grid) {
  const Axes axes = closest_axes(grid);
  Grid ras;
  // Voxel position in the new grid -> in the old one.
  Affine old_place{};
  old_place.rows = {};
  for (size_t a = 0; a < 3; ++a) {
    const size_t w = axes.world[a];
    ras.size[w] = grid.size[a];
    old_place.rows[a][w] = axes.backward[a] ? -1 : 1;
    old_place.rows[a][3] = axes.backward[a] ? static_cast<double>(grid.size[a] - 1) : 0;
  }
  ras.to_world = grid.to_world.after(old_place);
  return ras;
}

Volume to_ras(const Volume& volume) {
  const Axes axes = closest_axes(volume.grid);
  Volume ras{to_ras(volume.grid), std::vector<float>(volume.values.size())};
  const std::array<int64_t, 3> strides{1, volume.grid.size[0], volume.grid.size[0] * volume.grid.size[1]};
  // In the old volume: the voxel that the new first one is, and how far the next along each new axis lies.
  int64_t first = 0;
  std::array<int64_t, 3> step{};
  for (size_t a = 0; a < 3; ++a) {
    step[axes.world[a]] = axes.backward[a] ? -strides[a] : strides[a];
    if (axes.backward[a]) first += strides[a] * (volume.grid.size[a] - 1);
  }
  float* to = ras.values.data();
  for (int64_t k = 0; k < ras.grid.size[2]; ++k)
    for (int64_t j = 0; j < ras.grid.size[1]; ++j)
      for (int64_t i = 0; i < ras.grid.size[0]; ++i)
        *to++ = volume.values[static_cast<size_t>(first + i * step[0] + j * step[1] + k * step[2])];
  return ras;
}

Volume resample(const Volume& volume, const Grid& grid, Interpolation how, float outside) {
  if (how == Interpolation::nearest) return sample(volume, grid, how, outside);
  const Point3 sigma = blur_for(between(grid, volume.grid));
  const bool coarser = sigma != Point3{};
  return coarser ? sample(smooth(volume, sigma), grid, how, outside) : sample(volume, grid, how, outside);
}

Grid grid_with_spacing(const Grid& grid, double mm) {
  check(mm > 0 && std::isfinite(mm), "[grid_with_spacing] {} mm", mm);
  const Point3 old_mm = grid.spacing();
  Grid result;
  Affine old_place{};
  for (size_t a = 0; a < 3; ++a) {
    const double scale = mm / old_mm[a], reach = static_cast<double>(grid.size[a]) / scale;
    // A millionth of a voxel is rounding and wants no voxel of its own.
    result.size[a] = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(reach - 1e-6)));
    old_place.rows[a][a] = scale;
    old_place.rows[a][3] = (static_cast<double>(grid.size[a] - 1) - scale * static_cast<double>(result.size[a] - 1)) / 2;
  }
  result.to_world = grid.to_world.after(old_place);
  return result;
}

Point3 middle_of(const Volume& volume, Middle how, float threshold) {
  const auto& size = volume.grid.size;
  Point3 low, high{}, sum{};
  for (size_t a = 0; a < 3; ++a) low[a] = static_cast<double>(size[a]);
  double count = 0;
  size_t n = 0;
  for (int64_t k = 0; k < size[2]; ++k) {
    for (int64_t j = 0; j < size[1]; ++j) {
      for (int64_t i = 0; i < size[0]; ++i, ++n) {
        if (!(volume.values[n] > threshold)) continue;
        const Point3 at{static_cast<double>(i), static_cast<double>(j), static_cast<double>(k)};
        ++count;
        for (size_t a = 0; a < 3; ++a) {
          sum[a] += at[a];
          low[a] = std::min(low[a], at[a]);
          high[a] = std::max(high[a], at[a]);
        }
      }
    }
  }
  Point3 middle;
  for (size_t a = 0; a < 3; ++a) {
    middle[a] = how == Middle::box ? (low[a] + high[a]) / 2 : sum[a] / count;
    if (count == 0) middle[a] = static_cast<double>(size[a] - 1) / 2;
  }
  return middle;
}

Grid window_around(const Grid& grid, const std::array<int64_t, 3>& size, const Point3& around) {
  Grid window{size, grid.to_world};
  Affine shift;
  for (size_t a = 0; a < 3; ++a) {
    check(size[a] >= 1, "[window_around] {} voxels along axis {}", size[a], a);
    shift.rows[a][3] = std::floor(around[a] - static_cast<double>(size[a] - 1) / 2 + 0.5);
  }
  window.to_world = grid.to_world.after(shift);
  return window;
}

Volume crop_or_pad(const Volume& volume, const Grid& window, float outside) {
  const Affine place = between(window, volume.grid);
  std::array<int64_t, 3> shift{};
  for (size_t r = 0; r < 3; ++r) {
    shift[r] = static_cast<int64_t>(std::llround(place.rows[r][3]));
    for (size_t c = 0; c < 4; ++c) {
      const double wanted = c == 3 ? static_cast<double>(shift[r]) : r == c ? 1 : 0;
      check(std::abs(place.rows[r][c] - wanted) < 1e-3, "[crop_or_pad] the window's voxels are not the volume's");
    }
  }
  Volume result{window, std::vector<float>(static_cast<size_t>(window.voxels()), outside)};
  const auto& size = volume.grid.size;
  // Of the window, along the first axis: the voxels that the volume has.
  const int64_t from = std::clamp<int64_t>(-shift[0], 0, window.size[0]);
  const int64_t to = std::clamp<int64_t>(size[0] - shift[0], from, window.size[0]);
  for (int64_t k = 0; k < window.size[2]; ++k) {
    for (int64_t j = 0; j < window.size[1]; ++j) {
      const int64_t old_j = j + shift[1], old_k = k + shift[2];
      if (old_j < 0 || old_j >= size[1] || old_k < 0 || old_k >= size[2]) continue;
      for (int64_t i = from; i < to; ++i) result.at(i, j, k) = volume.at(i + shift[0], old_j, old_k);
    }
  }
  return result;
}

Volume crop_or_pad(const Volume& volume, const std::array<int64_t, 3>& size, Middle around, float threshold) {
  return crop_or_pad(volume, window_around(volume.grid, size, middle_of(volume, around, threshold)));
}

bool same_grid(const Grid& a, const Grid& b, double mm) {
  if (a.size != b.size) return false;
  // Affine maps that agree at the corners agree between them.
  for (int corner = 0; corner < 8; ++corner) {
    Point3 p{};
    for (size_t axis = 0; axis < 3; ++axis) p[axis] = (corner >> axis & 1) != 0 ? static_cast<double>(a.size[axis] - 1) : 0;
    const Point3 x = a.to_world(p), y = b.to_world(p);
    if (!(std::hypot(x[0] - y[0], x[1] - y[1], x[2] - y[2]) <= mm)) return false;
  }
  return true;
}

}  // namespace ermoe
