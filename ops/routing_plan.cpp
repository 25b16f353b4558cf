#include "ops/routing_plan.h"

#include "ops/kernels/routing_plan.h"

#include <limits>

namespace ermoe {

RoutingPlan make_plan(const ExecContext& ctx, const Tensor& ids, int64_t experts) {
  check(ids.defined() && ids.dtype() == DType::i32 && ids.shape().rank() == 2, "[make_plan] wants ids (N, K) i32 but got {} {}",
        ids.defined() ? name_of(ids.dtype()) : "an undefined tensor", ids.shape().str());
  const int64_t tokens = ids.shape()[0], slots = ids.shape()[1], rows = ids.numel();
  check(experts >= 1 && experts < std::numeric_limits<int32_t>::max(), "[make_plan] {} experts", experts);
  check(rows < std::numeric_limits<int32_t>::max(), "[make_plan] ids {} are more slots than 32 bits can number", ids.shape().str());
  RoutingPlan plan;
  plan.tokens = tokens;
  plan.slots = slots;
  plan.experts = experts;
  plan.expert_ids = ids;
  plan.counts = ctx.empty({experts}, DType::i32, "plan");
  plan.offsets = ctx.empty({experts + 1}, DType::i32, "plan");
  plan.row_slot = ctx.empty({rows}, DType::i32, "plan");
  plan.slot_row = ctx.empty({rows}, DType::i32, "plan");
  plan.row_token = ctx.empty({rows}, DType::i32, "plan");
  const RoutingPlanDims dims{tokens, slots, experts};
  const RoutingPlanBuffers buffers{plan.counts.data<int32_t>(), plan.offsets.data<int32_t>(), plan.row_slot.data<int32_t>(),
                                   plan.slot_row.data<int32_t>(), plan.row_token.data<int32_t>()};
  on_device(
      ctx, [&] { cpu::make_plan(dims, ids.data<int32_t>(), buffers); },
      [&](auto) { cuda::make_plan(ctx.stream, dims, ids.data<int32_t>(), buffers); });
  return plan;
}

}  // namespace ermoe
