// Known transforms to be found again: a volume is moved, gets another contrast, a bias field and noise, and is aligned with what it was.
#pragma once

#include "core/rng.h"
#include "data/align.h"
#include "data/align_samples.h"
#include "data/volume_levels.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace ermoe::testing {

/// How intensities from 0 to 1 change. `folded` is not monotone: grey matter becomes brighter than white.
enum class Contrast { same, gamma, inverted, folded };

inline double changed(Contrast contrast, double x) {
  const double v = std::clamp(x, 0.0, 1.2);
  switch (contrast) {
    case Contrast::same: return v;
    case Contrast::gamma: return std::pow(v, 0.6);
    case Contrast::inverted: return v < 0.05 ? v : 1.25 - v;  // inside the head; air stays dark
    case Contrast::folded: return v < 0.5 ? 2 * v : 1.6 - 1.2 * v;
  }
  return v;
}

inline double between(RngKey key, uint64_t i, double low, double high) { return low + (high - low) * static_cast<double>(uniform(key, i)); }

/// A rotation of at most `degrees` about a random axis through `centre`, then a shift of at most `mm`.
inline Affine random_rigid(RngKey key, const Point3& centre, double degrees, double mm) {
  const auto direction = [&](uint64_t at) {
    Point3 d = {normal(key, at), normal(key, at + 1), normal(key, at + 2)};
    const double length = std::hypot(d[0], d[1], d[2]);
    for (double& c : d) c /= length;
    return d;
  };
  const Point3 axis = direction(0), way = direction(3);
  const double angle = between(key, 6, 0, degrees) * std::numbers::pi / 180, far = between(key, 7, 0, mm);
  const double c = std::cos(angle), s = std::sin(angle);
  const std::array<Point3, 3> cross = {{{0, -axis[2], axis[1]}, {axis[2], 0, -axis[0]}, {-axis[1], axis[0], 0}}};
  Affine a;
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) a.rows[i][j] = (i == j ? c : 0) + s * cross[i][j] + (1 - c) * axis[i] * axis[j];
    a.rows[i][3] = centre[i] + far * way[i];
    for (size_t j = 0; j < 3; ++j) a.rows[i][3] -= a.rows[i][j] * centre[j];
  }
  return a;
}

/// The volume on its own grid after `to_old`: place x shows what lay at to_old(x).
inline Volume moved(const Volume& volume, const Affine& to_old) {
  const Lattice lattice(volume);
  const Affine to_voxel = volume.grid.to_world.inverse().after(to_old).after(volume.grid.to_world);
  Volume out = volume;
  for (int64_t k = 0; k < out.grid.size[2]; ++k)
    for (int64_t j = 0; j < out.grid.size[1]; ++j)
      for (int64_t i = 0; i < out.grid.size[0]; ++i) {
        Lattice::Sample s;
        const Point3 at = to_voxel({static_cast<double>(i), static_cast<double>(j), static_cast<double>(k)});
        out.at(i, j, k) = lattice.look_up(at, s) ? s.value : lattice.low();
      }
  return out;
}

/// Another contrast, a bias field (slopes of up to 20 % along each axis, a bowl of up to 30 %), and noise (as magnitudes have it) of
/// `noise` times the range.
inline void disturb(Volume& volume, RngKey key, Contrast contrast, double noise) {
  const Lattice range(volume);
  const double scale = 1 / (static_cast<double>(range.high()) - range.low());
  const Point3 slope = {between(key, 0, -0.2, 0.2), between(key, 1, -0.2, 0.2), between(key, 2, -0.2, 0.2)};
  const double bowl = between(key, 3, -0.3, 0.3);
  const auto& n = volume.grid.size;
  for (int64_t k = 0; k < n[2]; ++k)
    for (int64_t j = 0; j < n[1]; ++j)
      for (int64_t i = 0; i < n[0]; ++i) {
        const Point3 u = {2.0 * static_cast<double>(i) / static_cast<double>(n[0]) - 1,
                          2.0 * static_cast<double>(j) / static_cast<double>(n[1]) - 1,
                          2.0 * static_cast<double>(k) / static_cast<double>(n[2]) - 1};
        double field = 1 + bowl * (u[0] * u[0] + u[1] * u[1] + u[2] * u[2] - 0.5);
        for (size_t a = 0; a < 3; ++a) field += slope[a] * u[a];
        const auto at = static_cast<uint64_t>(i + n[0] * (j + n[1] * k));
        const double v = field * changed(contrast, scale * (static_cast<double>(volume.at(i, j, k)) - range.low()));
        volume.at(i, j, k) =
            static_cast<float>(std::hypot(v + noise * normal(key.fold(1), 2 * at), noise * normal(key.fold(1), 2 * at + 1)));
      }
}

struct Miss {
  double mm = 0;       // mean distance over the foreground
  double degrees = 0;  // of the rotation that is left
};

/// How far `found` is from `truth`, both from the world of `fixed`.
inline Miss miss_of(const Affine& found, const Affine& truth, const Volume& fixed) {
  Miss miss;
  int64_t count = 0;
  const float threshold = foreground_threshold(fixed);
  const auto& n = fixed.grid.size;
  for (int64_t k = 0; k < n[2]; k += 2)
    for (int64_t j = 0; j < n[1]; j += 2)
      for (int64_t i = 0; i < n[0]; i += 2) {
        if (!(fixed.at(i, j, k) > threshold)) continue;
        const Point3 x = fixed.grid.to_world({static_cast<double>(i), static_cast<double>(j), static_cast<double>(k)});
        const Point3 a = found(x), b = truth(x);
        miss.mm += std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
        ++count;
      }
  miss.mm /= static_cast<double>(std::max<int64_t>(1, count));
  const Affine left = found.after(truth.inverse());
  const double trace = left.rows[0][0] + left.rows[1][1] + left.rows[2][2];
  miss.degrees = std::acos(std::clamp((trace - 1) / 2, -1.0, 1.0)) * 180 / std::numbers::pi;
  return miss;
}

inline double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t n = values.size();
  return n == 0 ? 0 : (values[(n - 1) / 2] + values[n / 2]) / 2;
}

}  // namespace ermoe::testing
