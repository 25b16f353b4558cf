#include "tools/standouts.h"

#include "models/routing_metrics.h"

#include <algorithm>
#include <numeric>

namespace ermoe {

void StepLoad::add(int64_t of, std::span<const double> tokens) {
  const double total = std::reduce(tokens.begin(), tokens.end());
  if (total == 0) return;
  const auto most = std::ranges::max_element(tokens);
  const double over = *most * static_cast<double>(tokens.size()) / total;
  if (over > max_over_mean) {
    max_over_mean = over;
    block = of;
    expert = most - tokens.begin();
  }
  gini = std::max(gini, gini_of(tokens));
}

SlowestRank slowest_rank(std::span<const double> seconds) {
  const auto most = std::ranges::max_element(seconds);
  const double mean = std::reduce(seconds.begin(), seconds.end()) / static_cast<double>(seconds.size());
  if (mean <= 0) return {};
  return {.rank = most - seconds.begin(), .over_mean = *most / mean};
}

}  // namespace ermoe
