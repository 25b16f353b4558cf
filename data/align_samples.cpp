#include "data/align_samples.h"

#include "core/error.h"
#include "core/rng.h"
#include "data/volume_levels.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

constexpr uint64_t kJitterSeed = 8, kChoiceSeed = 9;

float percentile(const std::vector<float>& values, double share) {
  std::vector<float> sorted = values;
  const auto place = sorted.begin() + static_cast<int64_t>(share * static_cast<double>(sorted.size() - 1));
  std::nth_element(sorted.begin(), place, sorted.end());
  return *place;
}

}  // namespace

Lattice::Lattice(const Volume& volume)
    : size_(volume.grid.size), to_voxel_(volume.grid.to_world.inverse()), empty_outside_(has_empty_border(volume)) {
  low_ = *std::ranges::min_element(volume.values);
  high_ = percentile(volume.values, 0.999);
  if (!(high_ > low_)) high_ = *std::ranges::max_element(volume.values);
  const auto [nx, ny, nz] = size_;
  samples_.resize(static_cast<size_t>((nx + 2) * (ny + 2) * (nz + 2)));
  const auto inside = [&](size_t a, int64_t i) { return std::clamp<int64_t>(i, 0, size_[a] - 1); };
  const auto at = [&](int64_t i, int64_t j, int64_t k) -> double { return volume.at(inside(0, i), inside(1, j), inside(2, k)); };
#pragma omp parallel for schedule(static)
  for (int64_t k = -1; k <= nz; ++k) {
    for (int64_t j = -1; j <= ny; ++j) {
      for (int64_t i = -1; i <= nx; ++i) {
        const Point3 d = {(at(i + 1, j, k) - at(i - 1, j, k)) / 2, (at(i, j + 1, k) - at(i, j - 1, k)) / 2,
                          (at(i, j, k + 1) - at(i, j, k - 1)) / 2};
        Point3 g{};  // by mm: the voxels' derivatives by the rows of world -> voxel
        for (size_t c = 0; c < 3; ++c)
          for (size_t r = 0; r < 3; ++r) g[c] += d[r] * to_voxel_.rows[r][c];
        samples_[static_cast<size_t>(i + 1 + (nx + 2) * (j + 1 + (ny + 2) * (k + 1)))] = {
            static_cast<float>(at(i, j, k)), static_cast<float>(g[0]), static_cast<float>(g[1]), static_cast<float>(g[2])};
      }
    }
  }
}

bool Lattice::look_up(const Point3& voxel, Sample& out) const {
  // Half a voxel beyond the last middles still lies within the outermost voxels.
  std::array<int64_t, 3> base;
  std::array<float, 3> t;
  for (size_t a = 0; a < 3; ++a) {
    if (!(voxel[a] >= -0.5 && voxel[a] <= static_cast<double>(size_[a]) - 0.5)) {
      out = {low_, 0, 0, 0};
      return empty_outside_;
    }
    const double shifted = voxel[a] + 1;
    base[a] = static_cast<int64_t>(shifted);
    t[a] = static_cast<float>(shifted - static_cast<double>(base[a]));
  }
  const int64_t row = size_[0] + 2, slice = row * (size_[1] + 2);
  const Sample* corner = samples_.data() + base[0] + row * base[1] + slice * base[2];
  const float x1 = t[0], x0 = 1 - x1;
  const std::array<float, 4> w = {(1 - t[1]) * (1 - t[2]), t[1] * (1 - t[2]), (1 - t[1]) * t[2], t[1] * t[2]};
  const std::array<const Sample*, 4> lines = {corner, corner + row, corner + slice, corner + row + slice};
  out = {};
  for (size_t l = 0; l < 4; ++l) {
    const Sample &a = lines[l][0], &b = lines[l][1];
    out.value += w[l] * (x0 * a.value + x1 * b.value);
    out.gx += w[l] * (x0 * a.gx + x1 * b.gx);
    out.gy += w[l] * (x0 * a.gy + x1 * b.gy);
    out.gz += w[l] * (x0 * a.gz + x1 * b.gz);
  }
  return true;
}

FixedSamples sample_fixed(const Volume& fixed, float threshold, double margin_mm, int64_t most) {
  const Foreground inner = find_foreground(fixed, threshold);
  check(inner.voxels > 0, "[sample_fixed] nothing above {}", threshold);
  const Lattice lattice(fixed);
  const Point3 mm = fixed.grid.spacing();
  std::array<int64_t, 3> low{}, count{};
  for (size_t a = 0; a < 3; ++a) {
    const auto margin = static_cast<int64_t>(std::ceil(margin_mm / mm[a]));
    low[a] = inner.low[a] - margin;
    count[a] = inner.high[a] + margin - low[a] + 1;
  }
  const int64_t places = count[0] * count[1] * count[2];
  const double kept = std::min(1.0, static_cast<double>(most) / static_cast<double>(places));
  FixedSamples out;
  out.low = lattice.low();
  out.high = lattice.high();
  for (int64_t p = 0; p < places; ++p) {
    const auto index = static_cast<uint64_t>(p);
    if (uniform(RngKey{kChoiceSeed}, index) >= static_cast<float>(kept)) continue;
    const Random4 r = philox(RngKey{kJitterSeed}, index);
    const std::array<int64_t, 3> cell = {p % count[0], p / count[0] % count[1], p / (count[0] * count[1])};
    Point3 voxel;
    for (size_t a = 0; a < 3; ++a) voxel[a] = static_cast<double>(low[a] + cell[a]) + uniform(r.x[a]) - 0.5;
    Lattice::Sample s;
    if (!lattice.look_up(voxel, s)) continue;
    out.points.push_back(fixed.grid.to_world(voxel));
    out.values.push_back(s.value);
  }
  return out;
}

}  // namespace ermoe
