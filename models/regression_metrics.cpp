#include "models/regression_metrics.h"

#include "core/error.h"
#include "core/rng.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>

namespace ermoe {
namespace {

double mean_of(std::span<const double> x) { return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size()); }

void check_values(std::span<const double> x, size_t count, const char* what) {
  check(!x.empty() && x.size() == count, "[regression] {} {} of {} samples", x.size(), what, count);
  const auto bad = std::ranges::find_if(x, [](double value) { return !std::isfinite(value); });
  check(bad == x.end(), "[regression] {} {} is {}", what, bad - x.begin(), bad == x.end() ? 0.0 : *bad);
}

std::vector<double> gaps_of(std::span<const double> truth, std::span<const double> predicted) {
  std::vector<double> gaps(truth.size());
  std::ranges::transform(predicted, truth, gaps.begin(), std::minus<>());
  return gaps;
}

std::vector<double> sizes_of(std::vector<double> values) {
  for (double& value : values) value = std::abs(value);
  return values;
}

/// Rounding makes a constant vary in its last bits.
bool is_constant(std::span<const double> x) {
  const auto [low, high] = std::ranges::minmax(x);
  return high - low <= 1e-12 * std::max(std::abs(low), std::abs(high));
}

/// Σ (x - mean x)(y - mean y).
double covariance_sum(std::span<const double> x, std::span<const double> y) {
  const double mx = mean_of(x), my = mean_of(y);
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += (x[i] - mx) * (y[i] - my);
  return sum;
}

/// Standard error of the mean.
std::optional<double> error_of_mean(std::span<const double> x) {
  if (x.size() < 2) return std::nullopt;
  const auto n = static_cast<double>(x.size());
  return std::sqrt(covariance_sum(x, x) / (n - 1) / n);
}

/// Between the two neighbours where `share` falls between ranks.
double quantile(std::span<const double> sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

/// Of the mean of x.
Interval bootstrap_mean(std::span<const double> x, const BootstrapOptions& options) {
  check(options.replicates >= 1 && options.coverage > 0 && options.coverage < 1, "[regression] a bootstrap of {} replicates for {}",
        options.replicates, options.coverage);
  std::vector<double> means(static_cast<size_t>(options.replicates));
  for (size_t b = 0; b < means.size(); ++b) {
    const RngKey key = RngKey{options.seed}.fold(b);
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += x[uniform_int(key, i, x.size())];
    means[b] = sum / static_cast<double>(x.size());
  }
  std::ranges::sort(means);
  const double tail = (1 - options.coverage) / 2;
  return {quantile(means, tail), quantile(means, 1 - tail)};
}

/// Values beyond it share a decade, so that the decade's start is a whole number that an int64 holds.
constexpr double kFarthest = 1e15;

std::vector<DecadeError> decades_of(std::span<const double> truth, std::span<const double> gaps) {
  std::map<int64_t, DecadeError> by_start;
  for (size_t i = 0; i < truth.size(); ++i) {
    const auto from = static_cast<int64_t>(10 * std::floor(std::clamp(truth[i], -kFarthest, kFarthest) / 10));
    DecadeError& decade = by_start[from];
    decade.from = from;
    ++decade.count;
    decade.mae += std::abs(gaps[i]);
    decade.mean_gap += gaps[i];
  }
  std::vector<DecadeError> decades;
  for (auto& [from, decade] : by_start) {
    decade.mae /= static_cast<double>(decade.count);
    decade.mean_gap /= static_cast<double>(decade.count);
    decades.push_back(decade);
  }
  return decades;
}

}  // namespace

std::optional<double> pearson(std::span<const double> x, std::span<const double> y) {
  check(x.size() == y.size(), "[pearson] {} and {} values", x.size(), y.size());
  if (x.size() < 2 || is_constant(x) || is_constant(y)) return std::nullopt;
  const double r = covariance_sum(x, y) / std::sqrt(covariance_sum(x, x) * covariance_sum(y, y));
  return std::clamp(r, -1.0, 1.0);
}

RegressionMetrics regression_metrics(std::span<const double> truth, std::span<const double> predicted, const BootstrapOptions& bootstrap) {
  check_values(truth, truth.size(), "true ages");
  check_values(predicted, truth.size(), "predictions");
  const std::vector<double> gaps = gaps_of(truth, predicted), sizes = sizes_of(gaps);
  const double squares = std::inner_product(gaps.begin(), gaps.end(), gaps.begin(), 0.0);
  RegressionMetrics m;
  m.count = std::ssize(truth);
  m.mae = mean_of(sizes);
  m.mae_error = error_of_mean(sizes);
  m.mae_interval = bootstrap_mean(sizes, bootstrap);
  m.rmse = std::sqrt(squares / static_cast<double>(truth.size()));
  m.r = pearson(predicted, truth);
  if (!is_constant(truth)) m.r2 = 1 - squares / covariance_sum(truth, truth);
  m.mean_gap = mean_of(gaps);
  m.gap_age_r = pearson(gaps, truth);
  m.decades = decades_of(truth, gaps);
  return m;
}

double BiasCorrection::operator()(double predicted) const {
  check(usable(), "[bias correction] predictions hardly follow age: their slope is {}", slope);
  return (predicted - intercept) / slope;
}

BiasCorrection fit_bias(std::span<const double> truth, std::span<const double> predicted) {
  check_values(truth, truth.size(), "true ages");
  check_values(predicted, truth.size(), "predictions");
  if (truth.size() < 3 || is_constant(truth)) return {.intercept = mean_of(predicted), .slope = 0};
  const double slope = covariance_sum(truth, predicted) / covariance_sum(truth, truth);
  return {.intercept = mean_of(predicted) - slope * mean_of(truth), .slope = slope};
}

PairedDifference paired_difference(std::span<const double> truth, std::span<const double> a, std::span<const double> b,
                                   const BootstrapOptions& bootstrap) {
  check_values(truth, truth.size(), "true ages");
  check_values(a, truth.size(), "predictions");
  check_values(b, truth.size(), "other predictions");
  std::vector<double> differences(truth.size());
  double better = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    const double d = std::abs(a[i] - truth[i]) - std::abs(b[i] - truth[i]);
    differences[i] = d;
    better += d < 0 ? 1 : d == 0 ? 0.5 : 0;
  }
  return {.count = std::ssize(truth),
          .mean = mean_of(differences),
          .error = error_of_mean(differences),
          .interval = bootstrap_mean(differences, bootstrap),
          .better_share = better / static_cast<double>(truth.size())};
}

RegressionReport regression_report(const RegressionSamples& s, const BootstrapOptions& bootstrap) {
  RegressionReport report{.plain = regression_metrics(s.truth, s.predicted, bootstrap), .corrected = {}, .mean_predictor_mae = {}};
  if (!s.corrected.empty()) report.corrected = regression_metrics(s.truth, s.corrected, bootstrap);
  if (s.training_means.empty()) return report;
  check_values(s.training_means, s.truth.size(), "training means");
  report.mean_predictor_mae = mean_of(sizes_of(gaps_of(s.truth, s.training_means)));
  return report;
}

}  // namespace ermoe
