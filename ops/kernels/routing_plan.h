// Contract of the kernel that sorts slots by expert. Read next: ops/cpu/routing_plan.cpp.
#pragma once

#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct RoutingPlanDims {
  int64_t tokens = 0;              // N
  int64_t slots = 0;               // K
  int64_t experts = 0;             // E
  int64_t rows = 0;                // M <= N*K, rows of the buffers
  const int32_t* order = nullptr;  // (N) the tokens in the order of their claims; null: as they are numbered
};

/// Where the plan is written; see `RoutingPlan` for the meaning of each.
struct RoutingPlanBuffers {
  int32_t* counts;     // (E)
  int32_t* offsets;    // (E+1)
  int32_t* row_slot;   // (M)
  int32_t* slot_row;   // (N*K)
  int32_t* row_token;  // (M)
};

namespace cpu {

/// Stable counting sort of the slots by expert. Throws on an id outside [-1, E) and where more than M slots are filled.
void make_plan(const RoutingPlanDims& dims, const int32_t* ids /* (N,K) */, const RoutingPlanBuffers& plan);

/// Sets to -1 every id beyond the first `capacity` of its expert, where slot k of all tokens comes before slot k + 1 of any, and tokens
/// come in the order of their claims.
void limit_capacity(const RoutingPlanDims& dims, int64_t capacity, int32_t* ids /* (N,K) */);

/// moved = (id + 1) mod E; -1 stays.
void rotate_experts(const RoutingPlanDims& dims, const int32_t* ids /* (N,K) */, int32_t* moved /* (N,K) */);

/// Flat slot i gets (i / each) mod E.
void ids_in_turn(const RoutingPlanDims& dims, int64_t each, int32_t* ids /* (N,K) */);

}  // namespace cpu

namespace cuda {

/// Integers of scratch memory that the sorts below need.
int64_t routing_plan_scratch(const RoutingPlanDims& dims);

/// An id outside [-1, E) counts as -1, and so does what finds no row left.
void make_plan(const Stream& stream, const RoutingPlanDims& dims, const int32_t* ids, const RoutingPlanBuffers& plan, int32_t* scratch);
void limit_capacity(const Stream& stream, const RoutingPlanDims& dims, int64_t capacity, int32_t* ids, int32_t* scratch);
void rotate_experts(const Stream& stream, const RoutingPlanDims& dims, const int32_t* ids, int32_t* moved);
void ids_in_turn(const Stream& stream, const RoutingPlanDims& dims, int64_t each, int32_t* ids);

}  // namespace cuda
}  // namespace ermoe
