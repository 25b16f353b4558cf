// Loss terms that go beside any router, for ablations: the balance loss of the Switch transformer (arXiv 2101.03961) and the
// z-loss of ST-MoE (arXiv 2202.08906). ERMoE itself has none.
#pragma once

#include "models/router.h"

namespace ermoe {

/// Appends to `routing.losses`, while training:
///   balance  α E Σ f_e P_e, α moe.balance_weight of switch_lbl, moe.extra_balance of the others. f_e: share of the filled slots;
///            P_e: mean of `routing.probabilities`, or of the softmax of `routing.logits` where a router has none of its own
///            (for ermoe, whose scores stand as logits: softmax(s), without a temperature).
///   z        moe.z_weight · mean(logsumexp(logits)²).
void add_losses(const ExecContext& ctx, const MoeConfig& moe, Routing& routing);

}  // namespace ermoe
