#include "ops/mlp.h"

#include "ops/checks.h"
#include "ops/gelu.h"
#include "ops/kernels/gelu.h"
#include "ops/linear_products.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

struct DenseMlp {
  static constexpr const char* name = "mlp";
  LinearDims up, down;
  Tensor x;       // (…, I)
  Tensor w1, w2;  // (F, I), (O, F)
  Tensor pre;     // (rows, F): before the GELU, of the widest tensors the one that is kept

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const bool through = out.wants(0) || out.wants(1) || out.wants(2);
    Tensor activation = through ? ctx.empty(pre.shape(), pre.dtype()) : gelu(ctx, Variable(pre)).value;
    const bool summed = through && hidden_gradient(ctx, dy, activation, out);
    linear_backward_parameters(ctx, down, activation, dy, master_slot(out, 3), master_slot(out, 4));
    activation = {};  // its memory goes to dx
    if (!through) return;
    const Tensor& dpre = pre;
    const GradSlot dw1 = master_slot(out, 1), db1 = summed ? GradSlot{} : master_slot(out, 2);
    linear_backward_parameters(ctx, up, x, dpre, dw1, db1);
    if (out.wants(0)) linear_backward_input(ctx, up, w1, dpre, out.into(0));
  }

  /// dpre = (dy W2) gelu'(pre) where `pre` was, which nobody else holds or needs again, and activation = gelu(pre).
  /// True where db1, if wanted, has been made on the way.
  bool hidden_gradient(const ExecContext& ctx, const Tensor& dy, const Tensor& activation, GradWriter& out) const {
    if (hidden_gradient_in_product(ctx, dy, activation)) return false;
    linear_backward_input(ctx, down, w2, dy, {activation, Accumulate::overwrite});
    const GradSlot db1 = master_slot(out, 2);
    const ColumnSumDims sum{up.rows, up.out, up.out};
    dispatch_compute(pre.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const GeluDims all{pre.numel()};
      T *in_place = pre.data<T>(), *d = activation.data<T>();
      on_device(
          ctx, tag,
          [&](auto) {
            cpu::gelu_backward_with_y(all, in_place, d);
            if (db1.dst.defined()) column_sum(ctx, sum, pre, db1);
          },
          [&](auto) {
            if (!db1.dst.defined()) return cuda::gelu_backward_with_y(ctx.stream, all, in_place, d);
            const auto partials = ctx.workspace->borrow<Master<T>>(sum.partials());
            cuda::gelu_backward_with_y_and_sums(ctx.stream, sum, in_place, d, partials.data(),
                                                {db1.dst.template data<Master<T>>(), db1.mode});
          });
    });
    return true;
  }

  /// The same but for db1, where one kernel makes both; else false, and nothing.
  bool hidden_gradient_in_product(const ExecContext& ctx, const Tensor& dy, const Tensor& activation) const {
    bool made = false;
    dispatch_compute(dy.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      on_device(
          ctx, tag, [](auto) {},
          [&](auto) {
            made = cuda::linear_gelu_backward_x(ctx.stream, down, dy.data<T>(), w2.data<T>(), pre.data<T>(), activation.data<T>());
          });
    });
    return made;
  }
};

struct MlpDims {
  LinearDims up, down;
};

MlpDims mlp_dims(const Variable& x, const MlpParameters& p) {
  check_floats(DenseMlp::name, {&x, &p.w1, &p.b1, &p.w2, &p.b2});
  check(p.w1.defined() && p.w2.defined(), "[mlp] x {} but no weights", x.shape().str());
  const Shape &w1 = p.w1.shape(), &w2 = p.w2.shape();
  check(x.shape().rank() >= 1 && w1.rank() == 2 && w2.rank() == 2 && x.shape()[-1] == w1[1] && w1[0] == w2[1],
        "[mlp] x {} but w1 {} and w2 {}", x.shape().str(), w1.str(), w2.str());
  const auto check_bias = [&](const char* which, const Variable& b, int64_t width) {
    check(!b.defined() || b.shape() == Shape{width}, "[mlp] {} {} for w1 {}, w2 {}", which, b.shape().str(), w1.str(), w2.str());
  };
  check_bias("b1", p.b1, w1[0]);
  check_bias("b2", p.b2, w2[0]);
  const int64_t rows = x.shape().rows();
  return {.up = {.rows = rows, .in = w1[1], .out = w1[0]}, .down = {.rows = rows, .in = w2[1], .out = w2[0]}};
}

/// pre = w1 x + b1, activation = gelu(pre).
void hidden_layer(const ExecContext& ctx, const LinearDims& dims, const Tensor& x, const MlpParameters& p, const Tensor& pre,
                  const Tensor& activation) {
  dispatch_compute(x.dtype(), DenseMlp::name, [&](auto tag) {
    using T = decltype(tag);
    const T *w = p.w1.value.data<T>(), *b = data_or_null<T>(p.b1.value);
    on_device(
        ctx, tag,
        [&](auto) {
          cpu::linear_forward(dims, x.data<T>(), w, b, pre.data<T>());
          cpu::gelu_forward({pre.numel()}, pre.data<T>(), activation.data<T>());
        },
        [&](auto) { cuda::linear_gelu_forward(ctx.stream, dims, x.data<T>(), w, b, pre.data<T>(), activation.data<T>()); });
  });
}

}  // namespace

Variable mlp(const ExecContext& ctx, const Variable& x, const MlpParameters& p) {
  const auto [up, down] = mlp_dims(x, p);
  const Tensor pre = ctx.empty({up.rows, up.out}, x.dtype()), activation = ctx.empty({up.rows, up.out}, x.dtype());
  hidden_layer(ctx, up, x.value, p, pre, activation);
  Tensor y = ctx.empty(x.shape().with(-1, down.out), x.dtype());
  linear_forward(ctx, down, activation, p.w2.value, p.b2.value, y);
  return record(ctx, std::move(y), {&x, &p.w1, &p.b1, &p.w2, &p.b2},
                DenseMlp{.up = up, .down = down, .x = x.value, .w1 = p.w1.value, .w2 = p.w2.value, .pre = pre});
}

}  // namespace ermoe
