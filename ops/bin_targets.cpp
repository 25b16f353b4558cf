#include "ops/bin_targets.h"

#include "ops/kernels/bin_targets.h"

namespace ermoe {

Tensor bin_targets(const ExecContext& ctx, const Tensor& numbers, const Bins& bins, double sigma) {
  const Shape& s = numbers.shape();
  check(numbers.defined() && (s.rank() == 1 || (s.rank() == 2 && s[1] == 1)), "[bin_targets] wants numbers (B, 1) but got {}", s.str());
  check(bins.count >= 1 && bins.width > 0 && sigma > 0, "[bin_targets] {} bins of {} and a deviation of {}", bins.count, bins.width, sigma);
  const BinTargetsDims dims{.batch = s[0], .bins = bins.count, .low = bins.low, .width = bins.width, .sigma = sigma};
  Tensor targets = ctx.empty({dims.batch, dims.bins}, numbers.dtype());
  dispatch_float(numbers.dtype(), "bin_targets", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::bin_targets(dims, numbers.data<T>(), targets.data<T>()); },
        [&](auto) { cuda::bin_targets(ctx.stream, dims, numbers.data<T>(), targets.data<T>()); });
  });
  return targets;
}

}  // namespace ermoe
