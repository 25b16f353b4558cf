// The way of rows to the ranks that hold their experts, and back, for one layer and one forward pass.
// Read first: ops/routing_plan.h, models/expert_share.h.
#pragma once

#include "models/expert_share.h"
#include "ops/routing_plan.h"
#include "ops/spread_mlp.h"

namespace ermoe {

/// For rows in the order of `plan`, of all experts, in the context's number of chunks. The expert ranks tell each other how many rows they
/// have for whom; on a GPU the host waits for that. Each chunk has a run of each rank's experts. Buffers have a few rows more than come.
RowTravel expert_travel(const ExecContext& ctx, const RoutingPlan& plan, const ExpertShare& share);

}  // namespace ermoe
