// Sorting slots by expert on the CPU: one counting sort in one thread. It moves 20 bytes a slot, which no GEMM over the
// same rows notices.
#include "ops/kernels/routing_plan.h"

#include "core/error.h"

#include <algorithm>
#include <vector>

namespace ermoe::cpu {

void make_plan(const RoutingPlanDims& dims, const int32_t* ids, const RoutingPlanBuffers& plan) {
  const int64_t slots = dims.tokens * dims.slots;
  std::fill_n(plan.counts, dims.experts, 0);
  for (int64_t slot = 0; slot < slots; ++slot) {
    check(ids[slot] >= -1 && ids[slot] < dims.experts, "[make_plan] expert id {} at token {} of {} experts", ids[slot], slot / dims.slots,
          dims.experts);
    if (ids[slot] >= 0) ++plan.counts[ids[slot]];
  }
  plan.offsets[0] = 0;
  for (int64_t e = 0; e < dims.experts; ++e) plan.offsets[e + 1] = plan.offsets[e] + plan.counts[e];
  const int64_t filled = plan.offsets[dims.experts];
  check(filled <= dims.rows, "[make_plan] {} slots are filled, for which there are {} rows", filled, dims.rows);

  std::vector<int32_t> next(plan.offsets, plan.offsets + dims.experts);
  for (int64_t slot = 0; slot < slots; ++slot) {
    const int32_t expert = ids[slot];
    const int32_t row = expert < 0 ? -1 : next[static_cast<size_t>(expert)]++;
    plan.slot_row[slot] = row;
    if (row < 0) continue;
    plan.row_slot[row] = static_cast<int32_t>(slot);
    plan.row_token[row] = static_cast<int32_t>(slot / dims.slots);
  }
  std::fill(plan.row_slot + filled, plan.row_slot + dims.rows, -1);
  std::fill(plan.row_token + filled, plan.row_token + dims.rows, -1);
}

void limit_capacity(const RoutingPlanDims& dims, int64_t capacity, int32_t* ids) {
  std::vector<int64_t> used(static_cast<size_t>(dims.experts));
  for (int64_t k = 0; k < dims.slots; ++k)
    for (int64_t i = 0; i < dims.tokens; ++i) {
      const int64_t n = dims.order == nullptr ? i : dims.order[i];
      int32_t& id = ids[n * dims.slots + k];
      if (id >= 0 && used[static_cast<size_t>(id)]++ >= capacity) id = -1;
    }
}

void rotate_experts(const RoutingPlanDims& dims, const int32_t* ids, int32_t* moved) {
  for (int64_t slot = 0; slot < dims.tokens * dims.slots; ++slot)
    moved[slot] = ids[slot] < 0 ? ids[slot] : static_cast<int32_t>((ids[slot] + int64_t{1}) % dims.experts);
}

void ids_in_turn(const RoutingPlanDims& dims, int64_t each, int32_t* ids) {
  for (int64_t slot = 0; slot < dims.tokens * dims.slots; ++slot) ids[slot] = static_cast<int32_t>(slot / each % dims.experts);
}

}  // namespace ermoe::cpu
