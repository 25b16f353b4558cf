// One linear layer an expert, over the rows that the plan gives it. Read next: ops/routing_plan.h.
#pragma once

#include "autograd/tape.h"
#include "ops/routing_plan.h"

namespace ermoe {

/// y (M, O), the plan's rows: row i is w[e] x_i + b[e], e the expert of row i; zeros beyond the filled rows. x (M, I), w (E, O, I),
/// b (E, O) or undefined. Experts without rows get zero gradients.
Variable grouped_linear(const ExecContext& ctx, const Variable& x, const Variable& w, const Variable& b, const RoutingPlan& plan);

}  // namespace ermoe
