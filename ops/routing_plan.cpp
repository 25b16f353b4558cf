#include "ops/routing_plan.h"

#include "ops/kernels/routing_plan.h"
#include "ops/optional_tensor.h"

#include <limits>

namespace ermoe {
namespace {

RoutingPlanDims dims_of(const char* op, const Tensor& ids, int64_t experts) {
  check(ids.defined() && ids.dtype() == DType::i32 && ids.shape().rank() == 2, "[{}] wants ids (N, K) i32 but got {} {}", op,
        ids.defined() ? name_of(ids.dtype()) : "an undefined tensor", ids.shape().str());
  check(experts >= 1 && experts < std::numeric_limits<int32_t>::max(), "[{}] {} experts", op, experts);
  check(ids.numel() < std::numeric_limits<int32_t>::max(), "[{}] ids {} are more slots than 32 bits can number", op, ids.shape().str());
  return {.tokens = ids.shape()[0], .slots = ids.shape()[1], .experts = experts, .rows = ids.numel()};
}

}  // namespace

RoutingPlan make_plan(const ExecContext& ctx, const Tensor& ids, int64_t experts) { return make_plan(ctx, ids, experts, ids.numel()); }

RoutingPlan make_plan(const ExecContext& ctx, const Tensor& ids, int64_t experts, int64_t most_rows) {
  RoutingPlanDims dims = dims_of("make_plan", ids, experts);
  check(most_rows >= 0 && most_rows <= ids.numel(), "[make_plan] at most {} rows for ids {}", most_rows, ids.shape().str());
  dims.rows = most_rows;
  RoutingPlan plan;
  plan.tokens = dims.tokens;
  plan.slots = dims.slots;
  plan.experts = experts;
  plan.expert_ids = ids;
  plan.counts = ctx.empty({experts}, DType::i32, "plan");
  plan.offsets = ctx.empty({experts + 1}, DType::i32, "plan");
  plan.row_slot = ctx.empty({most_rows}, DType::i32, "plan");
  plan.slot_row = ctx.empty({ids.numel()}, DType::i32, "plan");
  plan.row_token = ctx.empty({most_rows}, DType::i32, "plan");
  const RoutingPlanBuffers buffers{plan.counts.data<int32_t>(), plan.offsets.data<int32_t>(), plan.row_slot.data<int32_t>(),
                                   plan.slot_row.data<int32_t>(), plan.row_token.data<int32_t>()};
  on_device(
      ctx, [&] { cpu::make_plan(dims, ids.data<int32_t>(), buffers); },
      [&](auto) {
        const auto scratch = ctx.workspace->borrow<int32_t>(cuda::routing_plan_scratch(dims));
        cuda::make_plan(ctx.stream, dims, ids.data<int32_t>(), buffers, scratch.data());
      });
  return plan;
}

void limit_capacity(const ExecContext& ctx, const Tensor& ids, int64_t experts, int64_t capacity, const Tensor& order) {
  RoutingPlanDims dims = dims_of("limit_capacity", ids, experts);
  check(capacity >= 0, "[limit_capacity] capacity {}", capacity);
  check(!order.defined() || (order.dtype() == DType::i32 && order.shape() == Shape{dims.tokens}), "[limit_capacity] order {} {} for ids {}",
        name_of(order.dtype()), order.shape().str(), ids.shape().str());
  dims.order = data_or_null<int32_t>(order);
  on_device(
      ctx, [&] { cpu::limit_capacity(dims, capacity, ids.data<int32_t>()); },
      [&](auto) {
        const auto scratch = ctx.workspace->borrow<int32_t>(cuda::routing_plan_scratch(dims));
        cuda::limit_capacity(ctx.stream, dims, capacity, ids.data<int32_t>(), scratch.data());
      });
}

Tensor ids_in_turn(const ExecContext& ctx, const Shape& shape, int64_t experts, int64_t each) {
  Tensor ids = ctx.empty(shape, DType::i32, "plan");
  const RoutingPlanDims dims = dims_of("ids_in_turn", ids, experts);
  check(each >= 1, "[ids_in_turn] {} slots each", each);
  on_device(
      ctx, [&] { cpu::ids_in_turn(dims, each, ids.data<int32_t>()); },
      [&](auto) { cuda::ids_in_turn(ctx.stream, dims, each, ids.data<int32_t>()); });
  return ids;
}

Tensor rotate_experts(const ExecContext& ctx, const Tensor& ids, int64_t experts) {
  const RoutingPlanDims dims = dims_of("rotate_experts", ids, experts);
  Tensor moved = ctx.empty(ids.shape(), DType::i32, "plan");
  on_device(
      ctx, [&] { cpu::rotate_experts(dims, ids.data<int32_t>(), moved.data<int32_t>()); },
      [&](auto) { cuda::rotate_experts(ctx.stream, dims, ids.data<int32_t>(), moved.data<int32_t>()); });
  return moved;
}

}  // namespace ermoe
