// A loss that makes a token's experts say different things: how much of each expert's output lies along another's (the orthogonality
// loss of Guo et al., "Advancing Expert Specialization for Better MoE", arXiv 2505.22323). Read first: ops/routing_plan.h.
#pragma once

#include "autograd/tape.h"
#include "ops/routing_plan.h"

namespace ermoe {

/// Scalar mean over tokens of Σ over ordered pairs j ≠ k of the token's filled slots of <y_j, y_k>² / (<y_k, y_k> + 1e-6): y_j's product
/// with its own projection on y_k. y (N*K, D) as the plan has its rows, N >= 1; in a compute dtype, the loss f32 where y is bf16.
/// `weights` (N) in the loss's dtype: how much each token counts where some are padding, as ops/token_weights.h makes them of one group;
/// undefined: all alike.
Variable output_overlap(const ExecContext& ctx, const Variable& y, const RoutingPlan& plan, const Tensor& weights = {});

}  // namespace ermoe
