// Copies tokens into the experts' row order. Its backward is a sum over the slots of a token, like `combine`.
// Read next: ops/grouped_linear.h.
#pragma once

#include "autograd/tape.h"
#include "ops/routing_plan.h"

namespace ermoe {

/// y (M, D), the plan's rows: row i is x[row_token[i]], zeros beyond the filled rows. x (N, D), in a compute dtype.
Variable dispatch(const ExecContext& ctx, const Variable& x, const RoutingPlan& plan);

}  // namespace ermoe
