#include "ops/softmax.h"

#include "ops/checks.h"
#include "ops/kernels/softmax.h"

namespace ermoe {
namespace {

struct Softmax {
  static constexpr const char* name = "softmax";
  SoftmaxDims dims;
  Tensor y;  // (…, D)

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    dispatch_compute(y.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      on_device(
          ctx, tag, [&](auto) { cpu::softmax_backward(dims, y.data<T>(), dy.data<T>(), dx.dst.data<T>(), dx.mode); },
          [&](auto) { cuda::softmax_backward(ctx.stream, dims, y.data<T>(), dy.data<T>(), dx.dst.data<T>(), dx.mode); });
    });
  }
};

}  // namespace

Variable softmax(const ExecContext& ctx, const Variable& x) {
  check_floats(Softmax::name, {&x});
  check(x.shape().rank() >= 1 && x.shape()[-1] >= 1, "[softmax] x {} has no last axis to sum over", x.shape().str());
  const SoftmaxDims dims{.rows = x.shape().rows(), .cols = x.shape()[-1]};
  const Tensor y = ctx.empty(x.shape(), x.dtype());
  dispatch_compute(x.dtype(), Softmax::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::softmax_forward(dims, x.value.data<T>(), y.data<T>()); },
        [&](auto) { cuda::softmax_forward(ctx.stream, dims, x.value.data<T>(), y.data<T>()); });
  });
  return record(ctx, y, {&x}, Softmax{.dims = dims, .y = y});
}

}  // namespace ermoe
