// See data/intensity.h.
#include "data/intensity.h"

#include "core/error.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

constexpr double most_litres = 2.3, least_zero_share = 0.25;

std::vector<float> above_zero(const Volume& volume) {
  std::vector<float> brain;
  for (const float v : volume.values)
    if (v > 0) brain.push_back(v);
  return brain;
}

/// The value below which a share of the others lies, between two of them linearly. Reorders them.
double quantile(std::vector<float>& values, double share) {
  const double at = share * static_cast<double>(values.size() - 1);
  const auto low = values.begin() + static_cast<std::ptrdiff_t>(at);
  std::nth_element(values.begin(), low, values.end());
  const double value = *low, rest = at - std::floor(at);
  return rest == 0 ? value : value + rest * (double{*std::min_element(low + 1, values.end())} - value);
}

/// What a normalisation does to an intensity: (v - shift) / scale, kept within bounds.
struct Mapping {
  double shift = 0, scale = 1;
  double low = -HUGE_VAL, high = HUGE_VAL;
};

Mapping mapping(std::vector<float>& brain, Normalize how) {
  const auto n = static_cast<double>(brain.size());
  if (how == Normalize::percentile) {
    const double low = quantile(brain, 0.01), high = quantile(brain, 0.99);
    return {low, high - low, 0, 1};
  }
  double sum = 0, squares = 0;
  for (const float v : brain) sum += v;
  const double mean = sum / n;
  if (how == Normalize::mean) return {.scale = mean};
  for (const float v : brain) squares += (v - mean) * (v - mean);
  return {.shift = mean, .scale = std::sqrt(squares / n)};
}

}  // namespace

void normalize(Volume& volume, Normalize how, const std::string& name) {
  if (how == Normalize::none) return;
  std::vector<float> brain = above_zero(volume);
  check_input(!brain.empty(), "{}: no voxel is above 0, so there is nothing to normalise by", name);
  const Mapping map = mapping(brain, how);
  check_input(map.scale > 0 && std::isfinite(map.scale), "{}: its voxels above 0 have one value, so there is no scale to normalise by",
              name);
  for (float& v : volume.values) v = v > 0 ? static_cast<float>(std::clamp((v - map.shift) / map.scale, map.low, map.high)) : 0.0f;
}

std::optional<std::string> looks_unstripped(const Volume& volume, const std::string& name) {
  const auto voxels = static_cast<double>(volume.values.size());
  const double zeros = static_cast<double>(std::ranges::count(volume.values, 0.0f)) / voxels;
  if (zeros < least_zero_share)
    return fmt::format("{}: only {:.0f} % of its voxels are exactly 0; brains are expected here, with skull and skin taken off", name,
                       100 * zeros);
  std::vector<float> positive = above_zero(volume);
  if (positive.empty()) return {};
  const double bright = quantile(positive, 0.98) / 5;
  const auto count = static_cast<double>(std::ranges::count_if(volume.values, [&](float v) { return v > bright; }));
  const double litres = count * std::abs(volume.grid.to_world.determinant()) / 1e6;
  if (litres <= most_litres) return {};
  return fmt::format(
      "{}: what is bright in it fills {:.1f} litres, more than a brain; brains are expected here, with skull and skin taken off", name,
      litres);
}

}  // namespace ermoe
