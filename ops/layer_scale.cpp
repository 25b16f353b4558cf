#include "ops/layer_scale.h"

#include "ops/checks.h"
#include "ops/destination.h"
#include "ops/kernels/layer_scale.h"

namespace ermoe {
namespace {

struct LayerScale {
  static constexpr const char* name = "layer_scale";
  LayerScaleDims dims;
  Tensor x;      // (…, D)
  Tensor gamma;  // (D)

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    dispatch_compute(x.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const auto dx = destination<T>(out, 0);
      const auto dgamma = master_destination<T>(out, 1);
      const auto partials = ctx.workspace->borrow<Master<T>>(dims.partials());
      on_device(
          ctx, tag, [&](auto) { cpu::layer_scale_backward(dims, x.data<T>(), gamma.data<T>(), dy.data<T>(), dx, dgamma, partials.data()); },
          [&](auto) {
            cuda::layer_scale_backward(ctx.stream, dims, x.data<T>(), gamma.data<T>(), dy.data<T>(), dx, dgamma, partials.data());
          });
    });
  }
};

}  // namespace

Variable layer_scale(const ExecContext& ctx, const Variable& x, const Variable& gamma) {
  check_floats(LayerScale::name, {&x, &gamma});
  check(gamma.defined() && x.shape().rank() >= 1 && gamma.shape() == Shape{x.shape()[-1]}, "[layer_scale] x {} but gamma {}",
        x.shape().str(), gamma.shape().str());
  const LayerScaleDims dims{.rows = x.shape().rows(), .cols = x.shape()[-1]};
  Tensor y = ctx.empty(x.shape(), x.dtype());
  dispatch_compute(x.dtype(), LayerScale::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::layer_scale_forward(dims, x.value.data<T>(), gamma.value.data<T>(), y.data<T>()); },
        [&](auto) { cuda::layer_scale_forward(ctx.stream, dims, x.value.data<T>(), gamma.value.data<T>(), y.data<T>()); });
  });
  return record(ctx, std::move(y), {&x, &gamma}, LayerScale{.dims = dims, .x = x.value, .gamma = gamma.value});
}

}  // namespace ermoe
