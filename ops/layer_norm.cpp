#include "ops/layer_norm.h"

#include "ops/checks.h"
#include "ops/destination.h"
#include "ops/kernels/layer_norm.h"

namespace ermoe {
namespace {

struct LayerNorm {
  static constexpr const char* name = "layer_norm";
  LayerNormDims dims;
  Tensor x;     // (N, D) in any number of leading axes
  Tensor w;     // (D)
  Tensor mean;  // (N)
  Tensor rstd;  // (N), 1 / sqrt(var + eps); both f32 where x is bf16

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    dispatch_compute(x.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      using M = Master<T>;
      const auto dx = destination<T>(out, 0);
      const auto dw = master_destination<T>(out, 1), db = master_destination<T>(out, 2);
      const auto partials = ctx.workspace->borrow<M>(dims.partials());
      on_device(
          ctx, tag,
          [&](auto) {
            cpu::layer_norm_backward(dims, x.data<T>(), w.data<T>(), mean.data<M>(), rstd.data<M>(), dy.data<T>(), dx, dw, db,
                                     partials.data());
          },
          [&](auto) {
            cuda::layer_norm_backward(ctx.stream, dims, x.data<T>(), w.data<T>(), mean.data<M>(), rstd.data<M>(), dy.data<T>(), dx, dw, db,
                                      partials.data());
          });
    });
  }
};

LayerNormDims dims_of(const Variable& x, const Variable& w, const Variable& b, double eps) {
  check_floats(LayerNorm::name, {&x, &w, &b});
  check(w.defined() && b.defined(), "[layer_norm] x {} but no weight or no bias", x.shape().str());
  check(x.shape().rank() >= 1 && w.shape() == Shape{x.shape()[-1]}, "[layer_norm] x {} but weight {}", x.shape().str(), w.shape().str());
  check(b.shape() == w.shape(), "[layer_norm] x {} but bias {}", x.shape().str(), b.shape().str());
  return {.rows = x.shape().rows(), .cols = x.shape()[-1], .eps = eps};
}

}  // namespace

Variable layer_norm(const ExecContext& ctx, const Variable& x, const Variable& w, const Variable& b, double eps) {
  const LayerNormDims dims = dims_of(x, w, b, eps);
  Tensor y = ctx.empty(x.shape(), x.dtype());
  const Tensor mean = ctx.empty({dims.rows}, master_of(x.dtype())), rstd = ctx.empty({dims.rows}, master_of(x.dtype()));
  dispatch_compute(x.dtype(), LayerNorm::name, [&](auto tag) {
    using T = decltype(tag);
    using M = Master<T>;
    on_device(
        ctx, tag,
        [&](auto) {
          cpu::layer_norm_forward(dims, x.value.data<T>(), w.value.data<T>(), b.value.data<T>(), y.data<T>(), mean.data<M>(),
                                  rstd.data<M>());
        },
        [&](auto) {
          check(dims.cols <= cuda::layer_norm_columns, "[layer_norm] x {}: a GPU normalises rows of at most {}", x.shape().str(),
                cuda::layer_norm_columns);
          cuda::layer_norm_forward(ctx.stream, dims, x.value.data<T>(), w.value.data<T>(), b.value.data<T>(), y.data<T>(), mean.data<M>(),
                                   rstd.data<M>());
        });
  });
  return record(ctx, std::move(y), {&x, &w, &b}, LayerNorm{.dims = dims, .x = x.value, .w = w.value, .mean = mean, .rstd = rstd});
}

}  // namespace ermoe
