// Who may claim an expert first. Not on the tape: an order has no gradient. Read next: ops/routing_plan.h.
#pragma once

#include "core/context.h"

namespace ermoe {

/// order (N) i32: the tokens by their largest weight, the largest first; among equals the lower token. weights (N, K) f32 or f64, K >= 1.
/// A NaN counts as minus infinity.
Tensor rank_tokens(const ExecContext& ctx, const Tensor& weights);

}  // namespace ermoe
