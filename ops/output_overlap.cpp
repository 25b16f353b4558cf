#include "ops/output_overlap.h"

#include "ops/checks.h"
#include "ops/kernels/output_overlap.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

struct OutputOverlap {
  static constexpr const char* name = "output_overlap";
  OutputOverlapDims dims;
  Tensor y;         // (N*K, D)
  Tensor products;  // (N, K, K), f32 where y is bf16
  Tensor slot_row;  // (N*K) i32
  Tensor row_slot;  // (N*K) i32
  Tensor weights;   // (N) or undefined

  void backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    const auto [dy, mode] = out.into(0);
    dispatch_compute(y.dtype(), name, [&, &dy = dy, mode = mode](auto tag) {
      using T = decltype(tag);
      const Master<T>*g = products.data<Master<T>>(), *dl = dloss.data<Master<T>>(), *w = data_or_null<Master<T>>(weights);
      const int32_t *rows = slot_row.data<int32_t>(), *slots = row_slot.data<int32_t>();
      const T* const from = y.data<T>();
      T* const dst = dy.template data<T>();
      on_device(
          ctx, tag, [&](auto) { cpu::output_overlap_backward(dims, from, g, rows, slots, w, dl, dst, mode); },
          [&](auto) { cuda::output_overlap_backward(ctx.stream, dims, from, g, rows, slots, w, dl, dst, mode); });
    });
  }
};

}  // namespace

Variable output_overlap(const ExecContext& ctx, const Variable& y, const RoutingPlan& plan, const Tensor& weights) {
  check_floats(OutputOverlap::name, {&y});
  check(plan.tokens > 0 && y.shape().rank() == 2 && y.shape()[0] == plan.rows(),
        "[output_overlap] y {} but the plan has {} rows of {} tokens", y.shape().str(), plan.rows(), plan.tokens);
  const OutputOverlapDims dims{plan.tokens, plan.slots, y.shape()[1]};
  const DType master = master_of(y.dtype());
  check(!weights.defined() || (weights.shape() == Shape{plan.tokens} && weights.dtype() == master),
        "[output_overlap] {} tokens but weights {} {}", plan.tokens, name_of(weights.dtype()), weights.shape().str());
  Tensor loss = ctx.empty({}, master);
  const Tensor products = ctx.empty({dims.tokens, dims.slots, dims.slots}, master);
  dispatch_compute(y.dtype(), OutputOverlap::name, [&](auto tag) {
    using T = decltype(tag);
    const T* const from = y.value.data<T>();
    const int32_t* const rows = plan.slot_row.data<int32_t>();
    const Master<T>* const w = data_or_null<Master<T>>(weights);
    auto *const g = products.data<Master<T>>(), *const to = loss.data<Master<T>>();
    on_device(
        ctx, tag, [&](auto) { cpu::output_overlap_forward(dims, from, rows, w, g, to); },
        [&](auto) {
          const auto scratch = ctx.workspace->borrow<double>(dims.tokens);
          cuda::output_overlap_forward(ctx.stream, dims, from, rows, w, g, to, scratch.data());
        });
  });
  return record(
      ctx, std::move(loss), {&y},
      OutputOverlap{
          .dims = dims, .y = y.value, .products = products, .slot_row = plan.slot_row, .row_slot = plan.row_slot, .weights = weights});
}

}  // namespace ermoe
