#include "data/volume_levels.h"

#include "core/error.h"
#include "data/volume_grid.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

constexpr double kWidthOfSigma = 2.3548200450309493;  // full width at half maximum of a Gaussian of sigma 1
constexpr int64_t kBins = 256;

/// Every `step`-th voxel of each axis, starting so that both ends lose alike.
Volume thin_out(const Volume& volume, const std::array<int64_t, 3>& step) {
  Volume thin;
  std::array<int64_t, 3> first{};
  Affine to_old;
  for (size_t a = 0; a < 3; ++a) {
    thin.grid.size[a] = (volume.grid.size[a] - 1) / step[a] + 1;
    first[a] = (volume.grid.size[a] - 1 - (thin.grid.size[a] - 1) * step[a]) / 2;
    to_old.rows[a][a] = static_cast<double>(step[a]);
    to_old.rows[a][3] = static_cast<double>(first[a]);
  }
  thin.grid.to_world = volume.grid.to_world.after(to_old);
  thin.values.resize(static_cast<size_t>(thin.grid.voxels()));
  for (int64_t k = 0; k < thin.grid.size[2]; ++k)
    for (int64_t j = 0; j < thin.grid.size[1]; ++j)
      for (int64_t i = 0; i < thin.grid.size[0]; ++i)
        thin.at(i, j, k) = volume.at(first[0] + i * step[0], first[1] + j * step[1], first[2] + k * step[2]);
  return thin;
}

/// From what is smooth to `width` to what is smooth to `wanted` and no finer than that needs.
Volume coarser(const Volume& volume, double width, double wanted) {
  if (wanted <= width) return volume;
  std::array<int64_t, 3> step{};
  const Point3 mm = volume.grid.spacing();
  for (size_t a = 0; a < 3; ++a) {
    step[a] = std::max<int64_t>(1, static_cast<int64_t>(wanted / mm[a] + 1e-3));
    step[a] = std::min(step[a], std::max<int64_t>(1, volume.grid.size[a] / 4));  // a thin volume keeps its few slices
  }
  const double sigma = std::sqrt(wanted * wanted - width * width) / kWidthOfSigma;
  return thin_out(smooth(volume, {sigma / mm[0], sigma / mm[1], sigma / mm[2]}), step);
}

}  // namespace

std::vector<Volume> coarser_copies(const Volume& volume, std::span<const double> spacings_mm) {
  check(!spacings_mm.empty() && std::ranges::is_sorted(spacings_mm, std::greater<>()), "[coarser_copies] spacings fall");
  const Point3 mm = volume.grid.spacing();
  std::vector<Volume> copies(spacings_mm.size());
  const double native = std::cbrt(mm[0] * mm[1] * mm[2]);
  for (size_t i = spacings_mm.size(); i-- > 0;) {
    const bool finest = i + 1 == spacings_mm.size();
    copies[i] =
        finest ? coarser(volume, native, spacings_mm[i]) : coarser(copies[i + 1], std::max(native, spacings_mm[i + 1]), spacings_mm[i]);
  }
  return copies;
}

float foreground_threshold(const Volume& volume) {
  std::vector<float> sorted = volume.values;
  const float low = *std::ranges::min_element(sorted);
  const auto place = sorted.begin() + static_cast<int64_t>(0.995 * static_cast<double>(sorted.size() - 1));
  std::nth_element(sorted.begin(), place, sorted.end());
  // Where hardly anything stands out, the percentile is background itself.
  const float high = *place > low ? *place : *std::ranges::max_element(sorted);
  if (!(high > low)) return low;
  std::vector<double> count(kBins, 0);
  for (const float v : volume.values)
    count[static_cast<size_t>(std::min<double>(kBins - 1, static_cast<double>(kBins) * (static_cast<double>(v) - low) / (high - low)))] +=
        1;
  double all = 0, all_sum = 0;
  for (int64_t b = 0; b < kBins; ++b)
    all += count[static_cast<size_t>(b)], all_sum += static_cast<double>(b) * count[static_cast<size_t>(b)];
  double below = 0, below_sum = 0, best = -1;
  int64_t cut = 0;
  for (int64_t b = 0; b + 1 < kBins; ++b) {
    below += count[static_cast<size_t>(b)];
    below_sum += static_cast<double>(b) * count[static_cast<size_t>(b)];
    if (below == 0 || below == all) continue;
    const double apart = below_sum / below - (all_sum - below_sum) / (all - below);
    const double between = below * (all - below) * apart * apart;
    if (between > best) best = between, cut = b + 1;
  }
  return low + 0.5f * (high - low) * static_cast<float>(cut) / static_cast<float>(kBins);
}

Foreground find_foreground(const Volume& volume, float threshold) {
  Foreground found;
  found.low = volume.grid.size;
  std::array<double, 3> sum{};
  const auto& n = volume.grid.size;
  for (int64_t k = 0; k < n[2]; ++k) {
    for (int64_t j = 0; j < n[1]; ++j) {
      for (int64_t i = 0; i < n[0]; ++i) {
        if (!(volume.at(i, j, k) > threshold)) continue;
        const std::array<int64_t, 3> at = {i, j, k};
        for (size_t a = 0; a < 3; ++a) {
          sum[a] += static_cast<double>(at[a]);
          found.low[a] = std::min(found.low[a], at[a]);
          found.high[a] = std::max(found.high[a], at[a]);
        }
        ++found.voxels;
      }
    }
  }
  if (found.voxels == 0) return {};
  for (double& s : sum) s /= static_cast<double>(found.voxels);
  found.centre = volume.grid.to_world(sum);
  return found;
}

bool has_empty_border(const Volume& volume) {
  const float low = *std::ranges::min_element(volume.values);
  const auto& n = volume.grid.size;
  int64_t border = 0, empty = 0;
  for (int64_t k = 0; k < n[2]; ++k) {
    for (int64_t j = 0; j < n[1]; ++j) {
      const bool whole_line = k == 0 || k == n[2] - 1 || j == 0 || j == n[1] - 1;
      const int64_t step = whole_line ? 1 : std::max<int64_t>(1, n[0] - 1);
      for (int64_t i = 0; i < n[0]; i += step) border += 1, empty += volume.at(i, j, k) == low;
    }
  }
  return static_cast<double>(empty) >= 0.99 * static_cast<double>(border);
}

}  // namespace ermoe
