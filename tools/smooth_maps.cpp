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

/// Cosines and sines of w x + phase at each x.
struct Wave {
  std::vector<double> cosine, sine;

  Wave(const std::vector<double>& xs, double w, double phase) {
    for (const double x : xs) cosine.push_back(std::cos(w * x + phase)), sine.push_back(std::sin(w * x + phase));
  }
};

/// Adds cos(a + b + c) of every cube, whose angles along the axes are those of the waves.
void add_wave(const Wave& x, const Wave& y, const Wave& z, std::vector<double>& field) {
  double* row = field.data();
  for (size_t k = 0; k < z.cosine.size(); ++k)
    for (size_t j = 0; j < y.cosine.size(); ++j, row += x.cosine.size()) {
      const double cosine = y.cosine[j] * z.cosine[k] - y.sine[j] * z.sine[k];
      const double sine = y.sine[j] * z.cosine[k] + y.cosine[j] * z.sine[k];
      for (size_t i = 0; i < x.cosine.size(); ++i) row[i] += x.cosine[i] * cosine - x.sine[i] * sine;
    }
}

}  // namespace

MapOnPlaces::MapOnPlaces(const CubeGrid& grid, double spacing_mm)
    : cubes(grid.cubes()), step_mm(static_cast<double>(grid.side) * spacing_mm) {
  const std::array<int64_t, 3> stride = {1, cubes[0], cubes[0] * cubes[1]};
  for (size_t axis = 0; axis < 3; ++axis)
    for (int64_t i = 0; i < cubes[axis]; ++i) mm[axis].push_back(spacing_mm * grid.middle_of(i * stride[axis])[axis]);
}

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
  std::vector<double> whole(static_cast<size_t>(map.cubes[0] * map.cubes[1] * map.cubes[2])), field;
  for (uint64_t w = 0; w < waves; ++w) {
    const double phase = 2 * std::numbers::pi * uniform(key, 4 * w + 3);
    add_wave(Wave(map.mm[0], normal(key, 4 * w) / length_mm, phase), Wave(map.mm[1], normal(key, 4 * w + 1) / length_mm, 0),
             Wave(map.mm[2], normal(key, 4 * w + 2) / length_mm, 0), whole);
  }
  for (const int64_t cube : map.cube) field.push_back(whole[static_cast<size_t>(cube)]);
  std::vector<double> sorted = map.value, dealt(map.value.size());
  std::ranges::sort(sorted);
  const std::vector<size_t> order = order_of(field);
  for (size_t i = 0; i < order.size(); ++i) dealt[order[i]] = sorted[i];
  return dealt;
}

}  // namespace ermoe
