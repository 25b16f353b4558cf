#include "ops/grouped_linear.h"

#include "ops/grouped_products.h"

namespace ermoe {
namespace {

struct GroupedLinear {
  static constexpr const char* name = "grouped_linear";
  GroupedLinearDims dims;
  Tensor x;        // (N*K, I)
  Tensor w;        // (E, O, I)
  Tensor offsets;  // (E+1) i32

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const auto* starts = offsets.data<int32_t>();
    if (out.wants(0)) grouped_backward_input(ctx, dims, w, starts, dy, out.into(0));
    grouped_backward_parameters(ctx, dims, x, starts, dy, parameter_slot(out, 1), parameter_slot(out, 2));
  }
};

GroupedLinearDims grouped_linear_dims(const Variable& x, const Variable& w, const Variable& b, const RoutingPlan& plan) {
  check(x.shape().rank() == 2 && w.shape().rank() == 3 && w.dtype() == x.dtype() && x.shape()[0] == plan.rows() &&
            w.shape()[0] == plan.experts && w.shape()[2] == x.shape()[1],
        "[grouped_linear] x {} {} and w {} {} for a plan of {} rows and {} experts", name_of(x.dtype()), x.shape().str(),
        name_of(w.dtype()), w.shape().str(), plan.rows(), plan.experts);
  check(!b.defined() || (b.shape() == Shape({w.shape()[0], w.shape()[1]}) && b.dtype() == x.dtype()),
        "[grouped_linear] b {} {} for w {} {}", name_of(b.dtype()), b.shape().str(), name_of(w.dtype()), w.shape().str());
  return {.rows = plan.rows(), .experts = plan.experts, .in = x.shape()[1], .out = w.shape()[1]};
}

}  // namespace

Variable grouped_linear(const ExecContext& ctx, const Variable& x, const Variable& w, const Variable& b, const RoutingPlan& plan) {
  const GroupedLinearDims dims = grouped_linear_dims(x, w, b, plan);
  Tensor y = ctx.empty({dims.rows, dims.out}, x.dtype());
  grouped_forward(ctx, dims, x.value, w.value, b.value, plan.offsets.data<int32_t>(), y);
  return record(ctx, std::move(y), {&x, &w, &b}, GroupedLinear{.dims = dims, .x = x.value, .w = w.value, .offsets = plan.offsets});
}

}  // namespace ermoe
