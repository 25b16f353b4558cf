#include "ops/scale.h"

#include "ops/checks.h"
#include "ops/kernels/scale.h"

namespace ermoe {
namespace {

void run(const ExecContext& ctx, const ScaleDims& dims, const Tensor& x, const Tensor& y, Accumulate mode) {
  dispatch_compute(x.dtype(), "scale", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::scale(dims, x.data<T>(), y.data<T>(), mode); },
        [&](auto) { cuda::scale(ctx.stream, dims, x.data<T>(), y.data<T>(), mode); });
  });
}

struct Scale {
  static constexpr const char* name = "scale";
  ScaleDims dims;

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    run(ctx, dims, dy, dx.dst, dx.mode);
  }
};

}  // namespace

Variable scale(const ExecContext& ctx, const Variable& x, double factor) {
  check_floats(Scale::name, {&x});
  const ScaleDims dims{.numel = x.value.numel(), .factor = factor};
  Tensor y = ctx.empty(x.shape(), x.dtype());
  run(ctx, dims, x.value, y, Accumulate::overwrite);
  return record(ctx, std::move(y), {&x}, Scale{.dims = dims});
}

}  // namespace ermoe
