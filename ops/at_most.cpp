#include "ops/at_most.h"

#include "ops/checks.h"
#include "ops/kernels/at_most.h"

namespace ermoe {
namespace {

struct AtMost {
  static constexpr const char* name = "at_most";
  AtMostDims dims;
  Tensor x;  // as the input

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    dispatch_compute(x.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      on_device(
          ctx, tag, [&](auto) { cpu::at_most_backward(dims, x.data<T>(), dy.data<T>(), dx.dst.data<T>(), dx.mode); },
          [&](auto) { cuda::at_most_backward(ctx.stream, dims, x.data<T>(), dy.data<T>(), dx.dst.data<T>(), dx.mode); });
    });
  }
};

}  // namespace

Variable at_most(const ExecContext& ctx, const Variable& x, double bound) {
  check_floats(AtMost::name, {&x});
  const AtMostDims dims{.numel = x.value.numel(), .bound = bound};
  Tensor y = ctx.empty(x.shape(), x.dtype());
  dispatch_compute(x.dtype(), AtMost::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::at_most_forward(dims, x.value.data<T>(), y.data<T>()); },
        [&](auto) { cuda::at_most_forward(ctx.stream, dims, x.value.data<T>(), y.data<T>()); });
  });
  return record(ctx, std::move(y), {&x}, AtMost{.dims = dims, .x = x.value});
}

}  // namespace ermoe
