// Brings the experts' rows back to their tokens, weighted. Read next: ops/combine_weights.h.
#pragma once

#include "autograd/tape.h"
#include "ops/routing_plan.h"

namespace ermoe {

/// out (N, D): out_n = Σ_k weights[n,k] · y[slot_row(n,k)], over the slots of n that have a row. y (M, D), the plan's rows,
/// weights (N, K), f32 where y is bf16; gradients to both. A token without any row gets zeros; the weight of a missing slot is not read.
Variable combine(const ExecContext& ctx, const Variable& y, const Variable& weights, const RoutingPlan& plan);

}  // namespace ermoe
