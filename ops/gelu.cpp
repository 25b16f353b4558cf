#include "ops/gelu.h"

#include "ops/kernels/gelu.h"

namespace ermoe {
namespace {

struct Gelu {
  static constexpr const char* name = "gelu";
  Tensor x;  // as the input

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const auto [dx, mode] = out.into(0);
    dispatch_compute(x.dtype(), name, [&, &dx = dx, mode = mode](auto tag) {
      using T = decltype(tag);
      const GeluDims dims{x.numel()};
      on_device(
          ctx, tag, [&](auto) { cpu::gelu_backward(dims, x.data<T>(), dy.data<T>(), dx.template data<T>(), mode); },
          [&](auto) { cuda::gelu_backward(ctx.stream, dims, x.data<T>(), dy.data<T>(), dx.template data<T>(), mode); });
    });
  }
};

}  // namespace

Variable gelu(const ExecContext& ctx, const Variable& x) {
  Tensor y = ctx.empty(x.shape(), x.dtype());
  dispatch_compute(x.dtype(), Gelu::name, [&](auto tag) {
    using T = decltype(tag);
    const GeluDims dims{x.value.numel()};
    on_device(
        ctx, tag, [&](auto) { cpu::gelu_forward(dims, x.value.data<T>(), y.data<T>()); },
        [&](auto) { cuda::gelu_forward(ctx.stream, dims, x.value.data<T>(), y.data<T>()); });
  });
  return record(ctx, std::move(y), {&x}, Gelu{.x = x.value});
}

}  // namespace ermoe
