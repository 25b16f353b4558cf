// The experts' feed-forward network on tensors, both ways, for some rows and the experts that they are of: `grouped_mlp` has all at once,
// `spread_mlp` part by part. Read first: ops/grouped_products.h.
#pragma once

#include "ops/gelu.h"
#include "ops/grouped_products.h"
#include "ops/kernels/gelu.h"
#include "ops/mlp.h"

namespace ermoe {

struct GroupedMlpDims {
  GroupedLinearDims up, down;  // F x I, then O x F

  GroupedMlpDims part(int64_t rows, int64_t experts) const {
    GroupedMlpDims dims = *this;
    dims.up.rows = dims.down.rows = rows;
    dims.up.experts = dims.down.experts = experts;
    return dims;
  }
};

/// Of rows like those of x. Throws `Error` with `op`, dtypes and shapes unless x (N, I) and the parameters of `experts` experts fit
/// together.
inline GroupedMlpDims grouped_mlp_dims(const char* op, const Variable& x, const MlpParameters& p, int64_t rows, int64_t experts) {
  const Shape &w1 = p.w1.shape(), &w2 = p.w2.shape();
  check(x.shape().rank() == 2 && w1.rank() == 3 && w2.rank() == 3 && w1[0] == experts && w2[0] == experts && w1[2] == x.shape()[1] &&
            w2[2] == w1[1] && p.w1.dtype() == x.dtype() && p.w2.dtype() == x.dtype(),
        "[{}] x {} {}, w1 {} {} and w2 {} {} for {} experts", op, name_of(x.dtype()), x.shape().str(), name_of(p.w1.dtype()), w1.str(),
        name_of(p.w2.dtype()), w2.str(), experts);
  const auto check_bias = [&](const char* which, const Variable& b, int64_t width) {
    check(!b.defined() || (b.shape() == Shape({experts, width}) && b.dtype() == x.dtype()), "[{}] {} {} {} for w1 {}, w2 {}", op, which,
          name_of(b.dtype()), b.shape().str(), w1.str(), w2.str());
  };
  check_bias("b1", p.b1, w1[1]);
  check_bias("b2", p.b2, w2[1]);
  return {.up = {.rows = rows, .experts = experts, .in = w1[2], .out = w1[1]},
          .down = {.rows = rows, .experts = experts, .in = w2[2], .out = w2[1]}};
}

struct MlpTensors {
  Tensor w1, b1, w2, b2;  // (E, F, I), (E, F), (E, O, F), (E, O); biases may be undefined
};

/// pre (N, F) = x W1_eᵀ + b1_e, y (N, O) = gelu(pre) W2_eᵀ + b2_e; zeros in y beyond the filled rows.
inline void grouped_mlp_forward(const ExecContext& ctx, const GroupedMlpDims& dims, const Tensor& x, const MlpTensors& p,
                                const int32_t* starts, const Tensor& pre, const Tensor& y) {
  const Tensor activation = ctx.empty(pre.shape(), x.dtype());
  dispatch_compute(x.dtype(), "grouped_mlp", [&](auto tag) {
    using T = decltype(tag);
    const T *in = x.data<T>(), *w = p.w1.data<T>(), *b = data_or_null<T>(p.b1);
    on_device(
        ctx, tag,
        [&](auto) {
          cpu::grouped_linear_forward(dims.up, in, w, b, starts, pre.data<T>());
          cpu::gelu_forward({pre.numel()}, pre.data<T>(), activation.data<T>());
        },
        [&](auto) { cuda::grouped_linear_gelu_forward(ctx.stream, dims.up, in, w, b, starts, pre.data<T>(), activation.data<T>()); });
  });
  grouped_forward(ctx, dims.down, activation, p.w2, p.b2, starts, y);
}

/// The second layer's way back, whose parameters' gradients go to `dw2` and `db2`. With `through` the gradient of `pre`,
/// (dy W2_e) gelu'(pre), takes its place.
inline void grouped_mlp_backward_down(const ExecContext& ctx, const GroupedMlpDims& dims, const Tensor& w2, const int32_t* starts,
                                      const Tensor& pre, const Tensor& dy, const GradSlot& dw2, const GradSlot& db2, bool through) {
  const Tensor activation = through ? ctx.empty(pre.shape(), pre.dtype()) : gelu(ctx, Variable(pre)).value;
  if (through) {
    dispatch_compute(pre.dtype(), "grouped_mlp", [&](auto tag) {
      using T = decltype(tag);
      const T *w = w2.data<T>(), *upper = dy.data<T>();
      T *in_place = pre.data<T>(), *y = activation.data<T>();
      on_device(
          ctx, tag,
          [&](auto) {
            cpu::grouped_linear_backward_input(dims.down, w, starts, upper, y, Accumulate::overwrite);
            cpu::gelu_backward_with_y({pre.numel()}, in_place, y);
          },
          [&](auto) { cuda::grouped_linear_gelu_backward_input(ctx.stream, dims.down, w, starts, upper, in_place, y); });
    });
  }
  grouped_backward_parameters(ctx, dims.down, activation, starts, dy, dw2, db2);
}

}  // namespace ermoe
