#include "ops/grouped_linear.h"

#include "ops/kernels/grouped_linear.h"

namespace ermoe {
namespace {

struct GroupedLinear {
  static constexpr const char* name = "grouped_linear";
  GroupedLinearDims dims;
  Tensor x;        // (N*K, I)
  Tensor w;        // (E, O, I)
  Tensor offsets;  // (E+1) i32

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    dispatch_compute(x.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const auto* starts = offsets.data<int32_t>();
      if (out.wants(0)) {
        const GradSlot dx = out.into(0);
        on_device(
            ctx, tag, [&](auto) { cpu::grouped_linear_backward_input(dims, w.data<T>(), starts, dy.data<T>(), dx.dst.data<T>(), dx.mode); },
            [&](auto) {
              cuda::grouped_linear_backward_input(ctx.stream, dims, w.data<T>(), starts, dy.data<T>(), dx.dst.data<T>(), dx.mode);
            });
      }
      if (out.wants(1)) {
        const GradSlot dw = out.into_master(1);
        on_device(
            ctx, tag,
            [&](auto) { cpu::grouped_linear_backward_weight(dims, x.data<T>(), starts, dy.data<T>(), dw.dst.data<T>(), dw.mode); },
            [&](auto) {
              const auto sums = ctx.workspace->borrow<float>(sizeof(T) == 2 ? cuda::grouped_linear_weight_scratch(ctx.stream, dims) : 0);
              cuda::grouped_linear_backward_weight(ctx.stream, dims, x.data<T>(), starts, dy.data<T>(), dw.dst.data<Master<T>>(),
                                                   sums.data(), dw.mode);
            });
      }
      if (out.wants(2)) {
        const GradSlot db = out.into_master(2);
        on_device(
            ctx, tag, [&](auto) { cpu::grouped_linear_backward_bias(dims, starts, dy.data<T>(), db.dst.data<T>(), db.mode); },
            [&](auto) {
              const auto sums = ctx.workspace->borrow<float>(cuda::grouped_linear_bias_scratch(dims));
              cuda::grouped_linear_backward_bias(ctx.stream, dims, starts, dy.data<T>(), db.dst.data<Master<T>>(), sums.data(), db.mode);
            });
      }
    });
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
  dispatch_compute(x.dtype(), GroupedLinear::name, [&](auto tag) {
    using T = decltype(tag);
    const auto* starts = plan.offsets.data<int32_t>();
    const T* bias = b.defined() ? b.value.data<T>() : nullptr;
    on_device(
        ctx, tag, [&](auto) { cpu::grouped_linear_forward(dims, x.value.data<T>(), w.value.data<T>(), bias, starts, y.data<T>()); },
        [&](auto) { cuda::grouped_linear_forward(ctx.stream, dims, x.value.data<T>(), w.value.data<T>(), bias, starts, y.data<T>()); });
  });
  return record(ctx, std::move(y), {&x, &w, &b}, GroupedLinear{.dims = dims, .x = x.value, .w = w.value, .offsets = plan.offsets});
}

}  // namespace ermoe
