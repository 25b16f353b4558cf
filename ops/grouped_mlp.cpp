#include "ops/grouped_mlp.h"

#include "ops/grouped_mlp_products.h"

namespace ermoe {
namespace {

struct GroupedMlp {
  static constexpr const char* name = "grouped_mlp";
  GroupedMlpDims dims;
  Tensor x;        // (N*K, I)
  Tensor w1, w2;   // (E, F, I), (E, O, F)
  Tensor pre;      // (N*K, F): before the GELU, of the widest tensors the one that is kept; its gradient takes its place
  Tensor offsets;  // (E+1) i32

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const auto* starts = offsets.data<int32_t>();
    const bool through = out.wants(0) || out.wants(1) || out.wants(2);
    grouped_mlp_backward_down(ctx, dims, w2, starts, pre, dy, parameter_slot(out, 3), parameter_slot(out, 4), through);
    if (!through) return;
    const Tensor& dpre = pre;
    grouped_backward_parameters(ctx, dims.up, x, starts, dpre, parameter_slot(out, 1), parameter_slot(out, 2));
    if (out.wants(0)) grouped_backward_input(ctx, dims.up, w1, starts, dpre, out.into(0));
  }
};

}  // namespace

Variable grouped_mlp(const ExecContext& ctx, const Variable& x, const MlpParameters& p, const RoutingPlan& plan) {
  const GroupedMlpDims dims = grouped_mlp_dims(GroupedMlp::name, x, p, plan.rows(), plan.experts);
  check(x.shape()[0] == plan.rows(), "[grouped_mlp] x {} for a plan of {} rows", x.shape().str(), plan.rows());
  const Tensor pre = ctx.empty({dims.up.rows, dims.up.out}, x.dtype());
  Tensor y = ctx.empty({dims.down.rows, dims.down.out}, x.dtype());
  grouped_mlp_forward(ctx, dims, x.value, {p.w1.value, p.b1.value, p.w2.value, p.b2.value}, plan.offsets.data<int32_t>(), pre, y);
  return record(ctx, std::move(y), {&x, &p.w1, &p.b1, &p.w2, &p.b2},
                GroupedMlp{.dims = dims, .x = x.value, .w1 = p.w1.value, .w2 = p.w2.value, .pre = pre, .offsets = plan.offsets});
}

}  // namespace ermoe
