#include "ops/grouped_mlp.h"

#include "ops/gelu.h"
#include "ops/grouped_products.h"
#include "ops/kernels/gelu.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

struct GroupedMlp {
  static constexpr const char* name = "grouped_mlp";
  GroupedLinearDims up, down;
  Tensor x;        // (N*K, I)
  Tensor w1, w2;   // (E, F, I), (E, O, F)
  Tensor pre;      // (N*K, F): before the GELU, of the widest tensors the one that is kept
  Tensor offsets;  // (E+1) i32

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const auto* starts = offsets.data<int32_t>();
    const bool through = out.wants(0) || out.wants(1) || out.wants(2);
    Tensor activation = through ? ctx.empty(pre.shape(), pre.dtype()) : gelu(ctx, Variable(pre)).value;
    if (through) hidden_gradient(ctx, dy, activation);
    grouped_backward_parameters(ctx, down, activation, starts, dy, out, 3, 4);
    activation = {};  // its memory goes to dx
    if (!through) return;
    const Tensor& dpre = pre;
    grouped_backward_parameters(ctx, up, x, starts, dpre, out, 1, 2);
    if (out.wants(0)) grouped_backward_input(ctx, up, w1, starts, dpre, out.into(0));
  }

  /// dpre = (dy W2_e) gelu'(pre) where `pre` was, which nobody else holds or needs again, and activation = gelu(pre).
  void hidden_gradient(const ExecContext& ctx, const Tensor& dy, const Tensor& activation) const {
    dispatch_compute(x.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const auto* starts = offsets.data<int32_t>();
      const T *w = w2.data<T>(), *upper = dy.data<T>();
      T *in_place = pre.data<T>(), *y = activation.data<T>();
      on_device(
          ctx, tag,
          [&](auto) {
            cpu::grouped_linear_backward_input(down, w, starts, upper, y, Accumulate::overwrite);
            cpu::gelu_backward_with_y({pre.numel()}, in_place, y);
          },
          [&](auto) { cuda::grouped_linear_gelu_backward_input(ctx.stream, down, w, starts, upper, in_place, y); });
    });
  }
};

struct MlpDims {
  GroupedLinearDims up, down;
};

MlpDims mlp_dims(const Variable& x, const MlpParameters& p, const RoutingPlan& plan) {
  const Shape &w1 = p.w1.shape(), &w2 = p.w2.shape();
  check(x.shape().rank() == 2 && w1.rank() == 3 && w2.rank() == 3 && x.shape()[0] == plan.rows() && w1[0] == plan.experts &&
            w2[0] == plan.experts && w1[2] == x.shape()[1] && w2[2] == w1[1] && p.w1.dtype() == x.dtype() && p.w2.dtype() == x.dtype(),
        "[grouped_mlp] x {} {}, w1 {} {} and w2 {} {} for a plan of {} rows and {} experts", name_of(x.dtype()), x.shape().str(),
        name_of(p.w1.dtype()), w1.str(), name_of(p.w2.dtype()), w2.str(), plan.rows(), plan.experts);
  const auto check_bias = [&](const char* which, const Variable& b, int64_t width) {
    check(!b.defined() || (b.shape() == Shape({plan.experts, width}) && b.dtype() == x.dtype()), "[grouped_mlp] {} {} {} for w1 {}, w2 {}",
          which, name_of(b.dtype()), b.shape().str(), w1.str(), w2.str());
  };
  check_bias("b1", p.b1, w1[1]);
  check_bias("b2", p.b2, w2[1]);
  return {.up = {.rows = plan.rows(), .experts = plan.experts, .in = w1[2], .out = w1[1]},
          .down = {.rows = plan.rows(), .experts = plan.experts, .in = w2[2], .out = w2[1]}};
}

/// pre = x W1_eᵀ + b1_e, activation = gelu(pre).
void hidden_layer(const ExecContext& ctx, const GroupedLinearDims& dims, const Variable& x, const MlpParameters& p, const int32_t* starts,
                  const Tensor& pre, const Tensor& activation) {
  dispatch_compute(x.dtype(), GroupedMlp::name, [&](auto tag) {
    using T = decltype(tag);
    const T *in = x.value.data<T>(), *w = p.w1.value.data<T>(), *b = data_or_null<T>(p.b1.value);
    on_device(
        ctx, tag,
        [&](auto) {
          cpu::grouped_linear_forward(dims, in, w, b, starts, pre.data<T>());
          cpu::gelu_forward({pre.numel()}, pre.data<T>(), activation.data<T>());
        },
        [&](auto) { cuda::grouped_linear_gelu_forward(ctx.stream, dims, in, w, b, starts, pre.data<T>(), activation.data<T>()); });
  });
}

}  // namespace

Variable grouped_mlp(const ExecContext& ctx, const Variable& x, const MlpParameters& p, const RoutingPlan& plan) {
  const auto [up, down] = mlp_dims(x, p, plan);
  const auto* starts = plan.offsets.data<int32_t>();
  const Tensor pre = ctx.empty({up.rows, up.out}, x.dtype()), activation = ctx.empty({up.rows, up.out}, x.dtype());
  hidden_layer(ctx, up, x, p, starts, pre, activation);
  Tensor y = ctx.empty({down.rows, down.out}, x.dtype());
  grouped_forward(ctx, down, activation, p.w2.value, p.b2.value, starts, y);
  return record(ctx, std::move(y), {&x, &p.w1, &p.b1, &p.w2, &p.b2},
                GroupedMlp{.up = up, .down = down, .x = x.value, .w1 = p.w1.value, .w2 = p.w2.value, .pre = pre, .offsets = plan.offsets});
}

}  // namespace ermoe
