#include "ops/layer_norm.h"

#include "ops/add.h"
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

/// The op's results beside its sum, and what it checks of x, weight and bias.
struct Rows {
  LayerNormDims dims;
  Tensor y, mean, rstd;
};

Rows rows_of(const ExecContext& ctx, const char* op, const Variable& x, const Variable& w, const Variable& b, double eps) {
  check_floats(op, {&x, &w, &b});
  const Shape& shape = x.shape();
  check(w.defined() && b.defined(), "[{}] x {} but no weight or no bias", op, shape.str());
  check(shape.rank() >= 1 && w.shape() == Shape{shape[-1]}, "[{}] x {} but weight {}", op, shape.str(), w.shape().str());
  check(b.shape() == w.shape(), "[{}] x {} but bias {}", op, shape.str(), b.shape().str());
  check(!ctx.device.is_cuda() || shape[-1] <= cuda::layer_norm_columns, "[{}] x {}: a GPU normalises rows of at most {}", op, shape.str(),
        cuda::layer_norm_columns);
  const DType sums = master_of(x.dtype());
  return {.dims = {.rows = shape.rows(), .cols = shape[-1], .eps = eps},
          .y = ctx.empty(shape, x.dtype()),
          .mean = ctx.empty({shape.rows()}, sums),
          .rstd = ctx.empty({shape.rows()}, sums)};
}

}  // namespace

Variable layer_norm(const ExecContext& ctx, const Variable& x, const Variable& w, const Variable& b, double eps) {
  const Rows rows = rows_of(ctx, LayerNorm::name, x, w, b, eps);
  const LayerNormDims& dims = rows.dims;
  dispatch_compute(x.dtype(), LayerNorm::name, [&](auto tag) {
    using T = decltype(tag);
    using M = Master<T>;
    on_device(
        ctx, tag,
        [&](auto) {
          cpu::layer_norm_forward(dims, x.value.data<T>(), w.value.data<T>(), b.value.data<T>(), rows.y.data<T>(), rows.mean.data<M>(),
                                  rows.rstd.data<M>());
        },
        [&](auto) {
          cuda::layer_norm_forward(ctx.stream, dims, x.value.data<T>(), w.value.data<T>(), b.value.data<T>(), rows.y.data<T>(),
                                   rows.mean.data<M>(), rows.rstd.data<M>());
        });
  });
  return record(ctx, rows.y, {&x, &w, &b}, LayerNorm{.dims = dims, .x = x.value, .w = w.value, .mean = rows.mean, .rstd = rows.rstd});
}

NormedSum add_layer_norm(const ExecContext& ctx, const Variable& x, const Variable& branch, const Variable& w, const Variable& b,
                         double eps) {
  constexpr const char* op = "add_layer_norm";
  check_floats(op, {&x, &branch});
  check(branch.defined() && x.shape() == branch.shape(), "[{}] x {} but branch {}", op, x.shape().str(), branch.shape().str());
  const Rows rows = rows_of(ctx, op, x, w, b, eps);
  const LayerNormDims& dims = rows.dims;
  const Tensor total = ctx.empty(x.shape(), x.dtype());
  dispatch_compute(x.dtype(), op, [&](auto tag) {
    using T = decltype(tag);
    using M = Master<T>;
    on_device(
        ctx, tag,
        [&](auto) {
          cpu::add_layer_norm_forward(dims, x.value.data<T>(), branch.value.data<T>(), w.value.data<T>(), b.value.data<T>(),
                                      total.data<T>(), rows.y.data<T>(), rows.mean.data<M>(), rows.rstd.data<M>());
        },
        [&](auto) {
          cuda::add_layer_norm_forward(ctx.stream, dims, x.value.data<T>(), branch.value.data<T>(), w.value.data<T>(), b.value.data<T>(),
                                       total.data<T>(), rows.y.data<T>(), rows.mean.data<M>(), rows.rstd.data<M>());
        });
  });
  // One forward kernel, but two nodes: on the way back the second adds to the gradient that the sum has already, in place, and the
  // first hands that tensor on. No kernel is left to fuse.
  Variable sum = record_sum(ctx, total, x, branch);
  Variable normed =
      record(ctx, rows.y, {&sum, &w, &b}, LayerNorm{.dims = dims, .x = total, .w = w.value, .mean = rows.mean, .rstd = rows.rstd});
  return {std::move(sum), std::move(normed)};
}

}  // namespace ermoe
