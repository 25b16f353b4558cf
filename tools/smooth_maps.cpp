#include "tools/smooth_maps.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

namespace ermoe {
namespace {

constexpr uint64_t waves = 100;  // that a field is the sum of
constexpr int64_t longest_lag = 3;

std::vector<size_t> order_of(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return values[i]; });
  return order;
}

/// Ranks from -1 to 1 with mean 0.
std::vector<double> centred_ranks(const std::vector<double>& values) {
  const std::vector<size_t> order = order_of(values);
  std::vector<double> ranks(values.size());
  const auto n = static_cast<double>(values.size());
  for (size_t i = 0; i < order.size(); ++i) ranks[order[i]] = (2 * static_cast<double>(i) + 1) / n - 1;
  return ranks;
}

/// Products of places that lie `lag` cubes apart along one axis.
struct Pairs {
  double products = 0, squares = 0, count = 0;
};

void add_pairs(const MapOnPlaces& map, const std::vector<double>& ranks, int64_t lag, Pairs& pairs) {
  const auto [nx, ny, nz] = map.cubes;
  std::vector<int64_t> place(static_cast<size_t>(nx * ny * nz), -1);
  for (size_t p = 0; p < map.cube.size(); ++p) place[static_cast<size_t>(map.cube[p])] = static_cast<int64_t>(p);
  const std::array<int64_t, 3> stride = {1, nx, nx * ny};
  for (size_t p = 0; p < map.cube.size(); ++p)
    for (size_t axis = 0; axis < 3; ++axis) {
      if (map.cube[p] / stride[axis] % map.cubes[axis] + lag >= map.cubes[axis]) continue;
      const int64_t other = place[static_cast<size_t>(map.cube[p] + lag * stride[axis])];
      if (other < 0) continue;
      const double a = ranks[p], b = ranks[static_cast<size_t>(other)];
      pairs.products += a * b;
      pairs.squares += (a * a + b * b) / 2;
      pairs.count += 1;
    }
}

double field_at(const Point3& at, const std::vector<std::array<double, 4>>& all) {
  double sum = 0;
  for (const auto& [x, y, z, phase] : all) sum += std::cos(x * at[0] + y * at[1] + z * at[2] + phase);
  return sum;
}

}  // namespace

double smoothness_of(std::span<const MapOnPlaces> maps) {
  double longest = 0;
  for (int64_t lag = 1; lag <= longest_lag; ++lag) {
    Pairs pairs;
    double step = 0;
    for (const MapOnPlaces& map : maps) {
      add_pairs(map, centred_ranks(map.value), lag, pairs);
      step = std::max(step, map.step_mm);
    }
    longest = std::max(longest, step / 1000);
    if (pairs.count == 0 || pairs.squares == 0) continue;
    const double of_ranks = pairs.products / pairs.squares;
    if (of_ranks <= 2 / std::sqrt(pairs.count)) continue;
    // The correlation of two Gaussian numbers whose ranks are correlated so.
    const double correlation = std::min(0.999, 2 * std::sin(std::numbers::pi / 6 * of_ranks));
    longest = std::max(longest, static_cast<double>(lag) * step / std::sqrt(-2 * std::log(correlation)));
  }
  return longest;
}

std::vector<double> surrogate_of(const MapOnPlaces& map, double length_mm, RngKey key) {
  std::vector<std::array<double, 4>> all;
  for (uint64_t w = 0; w < waves; ++w)
    all.push_back({normal(key, 4 * w) / length_mm, normal(key, 4 * w + 1) / length_mm, normal(key, 4 * w + 2) / length_mm,
                   2 * std::numbers::pi * uniform(key, 4 * w + 3)});
  std::vector<double> field;
  for (const Point3& at : map.at) field.push_back(field_at(at, all));
  std::vector<double> sorted = map.value, dealt(map.value.size());
  std::ranges::sort(sorted);
  const std::vector<size_t> order = order_of(field);
  for (size_t i = 0; i < order.size(); ++i) dealt[order[i]] = sorted[i];
  return dealt;
}

}  // namespace ermoe
