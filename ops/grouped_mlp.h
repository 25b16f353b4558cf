// The experts' feed-forward network as one node: two grouped linear layers with a GELU between. It computes what
// `grouped_linear`, `gelu`, `grouped_linear` compute; on Hopper GPUs the GELU and its derivative ride on the products.
// Read next: ops/grouped_linear.h.
#pragma once

#include "autograd/tape.h"
#include "ops/routing_plan.h"

namespace ermoe {

/// The parameters of all experts: w1 (E, F, I), b1 (E, F), w2 (E, O, F), b2 (E, O). Biases may be undefined.
struct MlpParameters {
  const Variable& w1;
  const Variable& b1;
  const Variable& w2;
  const Variable& b2;
};

/// y (N*K, O): row i is w2[e] gelu(w1[e] x_i + b1[e]) + b2[e], e the expert of row i; zeros beyond the filled rows. x (N*K, I).
Variable grouped_mlp(const ExecContext& ctx, const Variable& x, const MlpParameters& p, const RoutingPlan& plan);

}  // namespace ermoe
