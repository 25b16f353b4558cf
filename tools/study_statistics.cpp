#include "tools/study_statistics.h"

#include "core/error.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <vector>

namespace ermoe {
namespace {

constexpr double upper = 0.975;  // of a two-sided 95 % interval
constexpr double normal_quantile = 1.959963984540054;

/// P(-t < T < t), A&S 26.7.3 (odd) and 26.7.4 (even).
double central_share(double t, int64_t degrees) {
  const auto v = static_cast<double>(degrees);
  const double angle = std::atan(t / std::sqrt(v)), sine = std::sin(angle), cosine = std::cos(angle);
  const bool odd = degrees % 2 == 1;
  double term = odd ? cosine : 1, sum = degrees == 1 ? 0 : term;
  for (int64_t k = odd ? 3 : 2; k <= degrees - 2; k += 2) {
    const auto n = static_cast<double>(k);
    term *= cosine * cosine * (n - 1) / n;
    sum += term;
  }
  return odd ? 2 / std::numbers::pi * (angle + sine * sum) : sine * sum;
}

std::vector<double> differences(std::span<const double> a, std::span<const double> b) {
  check(!a.empty() && a.size() == b.size(), "[study] {} figures beside {} are no pairs", a.size(), b.size());
  std::vector<double> all(a.size());
  for (size_t i = 0; i < a.size(); ++i) all[i] = a[i] - b[i];
  return all;
}

RowDifference with_interval(std::span<const double> apart, double quantile, Over over) {
  const Spread spread = spread_of(apart);
  const auto n = static_cast<double>(apart.size());
  const double half = quantile * *spread.deviation / std::sqrt(n);
  return {.mean = spread.mean,
          .pairs = static_cast<int64_t>(apart.size()),
          .over = over,
          .interval = Interval{spread.mean - half, spread.mean + half}};
}

}  // namespace

Spread spread_of(std::span<const double> values) {
  check(!values.empty(), "[study] the spread of nothing");
  const auto n = static_cast<double>(values.size());
  Spread spread{.mean = std::accumulate(values.begin(), values.end(), 0.0) / n, .deviation = {}};
  if (values.size() == 1) return spread;
  double squares = 0;
  for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
  spread.deviation = std::sqrt(squares / (n - 1));
  return spread;
}

double student_t_quantile(double p, int64_t degrees) {
  check(p >= 0.5 && p < 1 && degrees >= 1, "[study] no quantile {} of t with {} degrees of freedom", p, degrees);
  const double share = 2 * p - 1;
  double low = 0, high = 1;
  while (central_share(high, degrees) < share) high *= 2;
  for (int i = 0; i < 200; ++i) {
    const double middle = (low + high) / 2;
    (central_share(middle, degrees) < share ? low : high) = middle;
  }
  return (low + high) / 2;
}

RowDifference difference_over_seeds(std::span<const double> row, std::span<const double> baseline) {
  const std::vector<double> apart = differences(row, baseline);
  if (apart.size() == 1) return {.mean = apart[0], .pairs = 1, .over = Over::nothing, .interval = {}};
  return with_interval(apart, student_t_quantile(upper, static_cast<int64_t>(apart.size()) - 1), Over::seeds);
}

RowDifference difference_over_samples(std::span<const double> row, std::span<const double> baseline) {
  const std::vector<double> apart = differences(row, baseline);
  check(apart.size() > 1, "[study] one sample has no interval");
  return with_interval(apart, normal_quantile, Over::samples);
}

}  // namespace ermoe
