#include "data/phantom_predictor.h"

#include <cmath>
#include <numbers>

namespace ermoe {
namespace {

double density(double z) { return std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi); }

double below(double z) { return std::erfc(-z / std::numbers::sqrt2) / 2; }

}  // namespace

double AgeModel::best_guess(double seen) const {
  const double low = (from - seen) / error_years, high = (to - seen) / error_years;
  const double mass = below(high) - below(low);
  if (mass < 1e-12) return seen < from ? from : to;  // further off than anybody is
  return seen + error_years * (density(low) - density(high)) / mass;
}

double AgeModel::mean_error() const {
  // E|age - m| = 2 E(m - age)+ as m is the mean; times the density of what is seen, mass / (to - from).
  constexpr int steps = 20000;
  const double reach = 8 * error_years, width = to - from + 2 * reach;
  double sum = 0;
  for (int i = 0; i < steps; ++i) {
    const double seen = from - reach + width * (i + 0.5) / steps;
    const double low = (from - seen) / error_years, at = (best_guess(seen) - seen) / error_years;
    sum += 2 * error_years * (at * (below(at) - below(low)) + density(at) - density(low));
  }
  return sum * width / steps / (to - from);
}

double AgeModel::mean_error_inside() const { return error_years * std::sqrt(2 / std::numbers::pi); }

double AgeModel::simulated_error(int64_t draws, RngKey key) const {
  double sum = 0;
  for (int64_t i = 0; i < draws; ++i) {
    const auto n = static_cast<uint64_t>(i);
    const double age = from + (to - from) * static_cast<double>(uniform(key.fold(0), n));
    sum += std::abs(best_guess(age + error_years * normal(key.fold(1), n)) - age);
  }
  return sum / static_cast<double>(draws);
}

}  // namespace ermoe
