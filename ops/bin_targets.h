// Numbers to distributions over bins: soft labels, which let a classifier learn a number (SFCN: Peng et al., Medical Image Analysis
// 2021). Read next: `kl_loss` of ops/cross_entropy.h.
#pragma once

#include "core/context.h"

namespace ermoe {

/// `count` bins side by side from `low` on, in the unit of the numbers.
struct Bins {
  double low = 10, width = 1;
  int64_t count = 90;

  double high() const { return low + width * static_cast<double>(count); }
  /// The middle of bin k.
  double middle(int64_t k) const { return low + width * (static_cast<double>(k) + 0.5); }
  bool operator==(const Bins&) const = default;
};

/// (B, count) from `numbers` (B, 1) or (B), f32 or f64: what of a normal distribution around each number, of deviation `sigma` > 0, lies
/// in each bin; rows sum to one. A number outside of the bins counts as the end that it is nearest to. Throws `Error` on other shapes.
Tensor bin_targets(const ExecContext& ctx, const Tensor& numbers, const Bins& bins, double sigma);

}  // namespace ermoe
