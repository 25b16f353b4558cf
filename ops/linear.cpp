#include "ops/linear.h"

#include "ops/checks.h"
#include "ops/column_sum.h"
#include "ops/kernels/linear.h"

namespace ermoe {
namespace {

struct Linear {
  static constexpr const char* name = "linear";
  LinearDims dims;
  Tensor x;  // (…, I)
  Tensor w;  // (O, I)

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    dispatch_compute(x.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      if (out.wants(0)) {
        const GradSlot dx = out.into(0);
        on_device(
            ctx, tag, [&](auto) { cpu::linear_backward_x(dims, dy.data<T>(), w.data<T>(), dx.dst.data<T>(), dx.mode); },
            [&](auto) { cuda::linear_backward_x(ctx.stream, dims, dy.data<T>(), w.data<T>(), dx.dst.data<T>(), dx.mode); });
      }
      if (out.wants(1)) {
        const GradSlot dw = out.into_master(1);
        on_device(
            ctx, tag, [&](auto) { cpu::linear_backward_w(dims, dy.data<T>(), x.data<T>(), dw.dst.data<T>(), dw.mode); },
            [&](auto) { cuda::linear_backward_w(ctx.stream, dims, dy.data<T>(), x.data<T>(), dw.dst.data<Master<T>>(), dw.mode); });
      }
    });
    if (out.wants(2)) column_sum(ctx, {dims.rows, dims.out, dims.out}, dy, out.into_master(2));
  }
};

LinearDims dims_of(const Variable& x, const Variable& w, const Variable& b) {
  check_floats(Linear::name, {&x, &w, &b});
  check(w.defined(), "[linear] x {} but no weight", x.shape().str());
  check(x.shape().rank() >= 1 && w.shape().rank() == 2 && x.shape()[-1] == w.shape()[1], "[linear] x {} but weight {}", x.shape().str(),
        w.shape().str());
  check(!b.defined() || b.shape() == Shape{w.shape()[0]}, "[linear] weight {} but bias {}", w.shape().str(), b.shape().str());
  return {.rows = x.shape().rows(), .in = w.shape()[1], .out = w.shape()[0]};
}

}  // namespace

Variable linear(const ExecContext& ctx, const Variable& x, const Variable& w, const Variable& b) {
  const LinearDims dims = dims_of(x, w, b);
  Tensor y = ctx.empty(x.shape().with(-1, dims.out), x.dtype());
  dispatch_compute(x.dtype(), Linear::name, [&](auto tag) {
    using T = decltype(tag);
    const T* bias = b.defined() ? b.value.data<T>() : nullptr;
    on_device(
        ctx, tag, [&](auto) { cpu::linear_forward(dims, x.value.data<T>(), w.value.data<T>(), bias, y.data<T>()); },
        [&](auto) { cuda::linear_forward(ctx.stream, dims, x.value.data<T>(), w.value.data<T>(), bias, y.data<T>()); });
  });
  return record(ctx, std::move(y), {&x, &w, &b}, Linear{.dims = dims, .x = x.value, .w = w.value});
}

}  // namespace ermoe
