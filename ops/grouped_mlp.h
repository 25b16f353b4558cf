// The experts' feed-forward network as one node: two grouped linear layers with a GELU between. It computes what
// `grouped_linear`, `gelu`, `grouped_linear` compute; on Hopper GPUs the GELU and its derivative ride on the products.
// Read next: ops/grouped_linear.h.
#pragma once

#include "ops/mlp.h"
#include "ops/routing_plan.h"

namespace ermoe {

/// y (M, O), the plan's rows: row i is w2[e] gelu(w1[e] x_i + b1[e]) + b2[e], e the expert of row i; zeros beyond the filled rows.
/// x (M, I); the parameters of all experts, each with an axis E in front.
Variable grouped_mlp(const ExecContext& ctx, const Variable& x, const MlpParameters& p, const RoutingPlan& plan);

}  // namespace ermoe
