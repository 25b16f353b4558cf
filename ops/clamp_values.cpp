#include "ops/clamp_values.h"

#include "ops/kernels/clamp_values.h"

namespace ermoe {

void clamp_values(const ExecContext& ctx, const Tensor& t, double low, double high) {
  check(low <= high, "[clamp_values] bounds {} and {}", low, high);
  const ClampDims dims{.numel = t.numel(), .low = low, .high = high};
  dispatch_compute(t.dtype(), "clamp_values", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::clamp_values(dims, t.data<T>()); }, [&](auto) { cuda::clamp_values(ctx.stream, dims, t.data<T>()); });
  });
}

}  // namespace ermoe
