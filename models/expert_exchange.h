// The way of rows to the ranks that hold their experts, and back, for one layer and one forward pass. Between the two lies the experts'
// network over the rows that came here, in the order of a plan of their own. Read first: ops/routing_plan.h, models/expert_share.h.
#pragma once

#include "models/expert_share.h"
#include "ops/exchange_rows.h"
#include "ops/routing_plan.h"

namespace ermoe {

class ExpertExchange {
 public:
  /// For rows in the order of `plan`, of all experts. The expert ranks tell each other how many rows they have for whom; on a GPU the
  /// host waits for that.
  ExpertExchange(const ExecContext& ctx, const RoutingPlan& plan, const ExpertShare& share);

  /// rows (N*K, D) -> those of the held experts, from all expert ranks, in the order of `plan()`.
  Variable send(const ExecContext& ctx, const Variable& rows) const;
  /// Rows in the order of `plan()` -> (N*K, D), in the order of the plan that this was made for; zeros beyond the filled rows.
  Variable bring_back(const ExecContext& ctx, const Variable& rows) const;
  /// Of what came here, over the held experts: its offsets alone, since rows came in the order in which experts want them. Buffers have
  /// a few rows more than came.
  const RoutingPlan& plan() const { return plan_; }

 private:
  RowTravel travel_;
  int64_t own_rows_ = 0;  // N*K
  RoutingPlan plan_;
};

}  // namespace ermoe
