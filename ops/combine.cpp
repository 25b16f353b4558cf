#include "ops/combine.h"

#include "ops/destination.h"
#include "ops/kernels/combine.h"

namespace ermoe {
namespace {

struct Combine {
  static constexpr const char* name = "combine";
  CombineDims dims;
  Tensor y;         // (M, D)
  Tensor weights;   // (N, K), f32 where y is bf16
  Tensor slot_row;  // (N*K) i32
  Tensor row_slot;  // (M) i32

  void backward(const ExecContext& ctx, const Tensor& dout, GradWriter& out) const {
    dispatch_compute(y.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const auto* w = weights.data<Master<T>>();
      const int32_t *rows = slot_row.data<int32_t>(), *slots = row_slot.data<int32_t>();
      const auto dy = destination<T>(out, 0);
      const auto dw = master_destination<T>(out, 1);
      on_device(
          ctx, tag,
          [&](auto) {
            if (dy.data != nullptr) cpu::combine_backward_rows(dims, w, slots, dout.data<T>(), dy.data, dy.mode);
            if (dw.data != nullptr) cpu::combine_backward_weights(dims, y.data<T>(), rows, dout.data<T>(), dw.data, dw.mode);
          },
          [&](auto) { cuda::combine_backward(ctx.stream, dims, y.data<T>(), w, rows, slots, dout.data<T>(), dy, dw); });
    });
  }
};

}  // namespace

Variable combine(const ExecContext& ctx, const Variable& y, const Variable& weights, const RoutingPlan& plan) {
  check(y.shape().rank() == 2 && y.shape()[0] == plan.rows(), "[combine] y {} but the plan has {} rows", y.shape().str(), plan.rows());
  check(weights.shape() == Shape({plan.tokens, plan.slots}) && weights.dtype() == master_of(y.dtype()),
        "[combine] weights {} {} but the plan is ({}, {}) and y {}", name_of(weights.dtype()), weights.shape().str(), plan.tokens,
        plan.slots, name_of(y.dtype()));
  const CombineDims dims{plan.tokens, plan.slots, y.shape()[1], plan.rows()};
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
