#include "ops/sigmoid.h"

#include "ops/checks.h"
#include "ops/kernels/sigmoid.h"

namespace ermoe {
namespace {

struct Sigmoid {
  static constexpr const char* name = "sigmoid";
  Tensor y;  // as the output

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    const SigmoidDims dims{y.numel()};
    dispatch_compute(y.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      on_device(
          ctx, tag, [&](auto) { cpu::sigmoid_backward(dims, y.data<T>(), dy.data<T>(), dx.dst.data<T>(), dx.mode); },
          [&](auto) { cuda::sigmoid_backward(ctx.stream, dims, y.data<T>(), dy.data<T>(), dx.dst.data<T>(), dx.mode); });
    });
  }
};

}  // namespace

Variable sigmoid(const ExecContext& ctx, const Variable& x) {
  check_floats(Sigmoid::name, {&x});
  const SigmoidDims dims{x.value.numel()};
  const Tensor y = ctx.empty(x.shape(), x.dtype());
  dispatch_compute(x.dtype(), Sigmoid::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::sigmoid_forward(dims, x.value.data<T>(), y.data<T>()); },
        [&](auto) { cuda::sigmoid_forward(ctx.stream, dims, x.value.data<T>(), y.data<T>()); });
  });
  return record(ctx, y, {&x}, Sigmoid{.y = y});
}

}  // namespace ermoe
