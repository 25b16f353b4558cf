#include "models/added_losses.h"

#include "ops/balance_loss.h"
#include "ops/scale.h"
#include "ops/softmax.h"

namespace ermoe {

void add_losses(const ExecContext& ctx, const MoeConfig& moe, Routing& routing) {
  if (!ctx.training()) return;
  const double balance = moe.router == RouterKind::switch_lbl ? moe.balance_weight : moe.extra_balance;
  if (balance > 0) {
    const Variable p = routing.probabilities.defined() ? routing.probabilities : softmax(ctx, routing.logits);
    routing.losses.push_back({"balance", scale(ctx, switch_balance(ctx, p, routing.plan.expert_ids), balance)});
  }
  if (moe.z_weight > 0) routing.losses.push_back({"z", scale(ctx, z_loss(ctx, routing.logits), moe.z_weight)});
}

}  // namespace ermoe
