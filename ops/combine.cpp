#include "ops/combine.h"

#include "ops/kernels/combine.h"

namespace ermoe {
namespace {

struct Combine {
  static constexpr const char* name = "combine";
  CombineDims dims;
  Tensor y;         // (N*K, D)
  Tensor weights;   // (N, K), f32 where y is bf16
  Tensor slot_row;  // (N*K) i32
  Tensor row_slot;  // (N*K) i32

  void backward(const ExecContext& ctx, const Tensor& dout, GradWriter& out) const {
    dispatch_compute(y.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      if (out.wants(0)) {
        const GradSlot dy = out.into(0);
        const int32_t* slots = row_slot.data<int32_t>();
        on_device(
            ctx, tag,
            [&](auto) { cpu::combine_backward_rows(dims, weights.data<Master<T>>(), slots, dout.data<T>(), dy.dst.data<T>(), dy.mode); },
            [&](auto) {
              cuda::combine_backward_rows(ctx.stream, dims, weights.data<Master<T>>(), slots, dout.data<T>(), dy.dst.data<T>(), dy.mode);
            });
      }
      if (out.wants(1)) {
        const GradSlot dw = out.into(1);
        const int32_t* rows = slot_row.data<int32_t>();
        on_device(
            ctx, tag,
            [&](auto) { cpu::combine_backward_weights(dims, y.data<T>(), rows, dout.data<T>(), dw.dst.data<Master<T>>(), dw.mode); },
            [&](auto) {
              cuda::combine_backward_weights(ctx.stream, dims, y.data<T>(), rows, dout.data<T>(), dw.dst.data<Master<T>>(), dw.mode);
            });
      }
    });
  }
};

}  // namespace

Variable combine(const ExecContext& ctx, const Variable& y, const Variable& weights, const RoutingPlan& plan) {
  check(y.shape().rank() == 2 && y.shape()[0] == plan.rows(), "[combine] y {} but the plan has {} rows", y.shape().str(), plan.rows());
  check(weights.shape() == Shape({plan.tokens, plan.slots}) && weights.dtype() == master_of(y.dtype()),
        "[combine] weights {} {} but the plan is ({}, {}) and y {}", name_of(weights.dtype()), weights.shape().str(), plan.tokens,
        plan.slots, name_of(y.dtype()));
  const CombineDims dims{plan.tokens, plan.slots, y.shape()[1]};
  Tensor out = ctx.empty({dims.tokens, dims.width}, y.dtype());
  dispatch_compute(y.dtype(), Combine::name, [&](auto tag) {
    using T = decltype(tag);
    const int32_t* rows = plan.slot_row.data<int32_t>();
    on_device(
        ctx, tag, [&](auto) { cpu::combine_forward(dims, y.value.data<T>(), weights.value.data<Master<T>>(), rows, out.data<T>()); },
        [&](auto) { cuda::combine_forward(ctx.stream, dims, y.value.data<T>(), weights.value.data<Master<T>>(), rows, out.data<T>()); });
  });
  return record(ctx, std::move(out), {&y, &weights},
                Combine{.dims = dims, .y = y.value, .weights = weights.value, .slot_row = plan.slot_row, .row_slot = plan.row_slot});
}

}  // namespace ermoe
