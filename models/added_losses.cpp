#include "models/added_losses.h"

#include "ops/balance_loss.h"
#include "ops/linear.h"
#include "ops/output_overlap.h"
#include "ops/regression_loss.h"
#include "ops/scale.h"
#include "ops/score_variance.h"
#include "ops/slice_rows.h"
#include "ops/softmax.h"
#include "ops/tokens.h"

namespace ermoe {
namespace {

double balance_weight(const MoeConfig& moe) { return moe.router == RouterKind::switch_lbl ? moe.balance_weight : moe.extra_balance; }

/// Whether any of the terms is a mean over tokens.
bool has_token_terms(const MoeConfig& moe) { return balance_weight(moe) > 0 || moe.z_weight > 0 || moe.variance_weight > 0; }

/// The elements of I (E, E), made on the device: ones in front of rows of E zeros lie E + 1 apart.
Tensor identity(const ExecContext& ctx, int64_t E, DType dtype) {
  const Tensor one = ctx.empty({1, 1, 1}, dtype), zeros = ctx.empty({E, E, 1}, dtype);
  fill(one, 1);
  fill(zeros, 0);
  return concat_tokens(ctx.with_tape(nullptr), Variable(one), Variable(zeros)).value.reshape({E * (E + 1)}).slice(0, E * E);
}

}  // namespace

Variable orthonormality_loss(const ExecContext& ctx, const Variable& rows) {
  const int64_t E = rows.shape()[0];
  const Variable products = reshape(ctx, linear(ctx, rows, rows, Variable()), {E * E});
  return scale(ctx, l1_loss(ctx, products, identity(ctx, E, rows.dtype())), static_cast<double>(E * E));
}

void add_losses(const ExecContext& ctx, const MoeConfig& moe, const RouterInput& in, Routing& routing) {
  if (!ctx.training()) return;
  const auto add_term = [&](const char* name, const Variable& value, double weight) {
    routing.losses.push_back({name, scale(ctx, value, weight)});
  };
  const Tensor weights = has_token_terms(moe) ? weights_of_tokens(ctx, in) : Tensor();
  Variable p = routing.probabilities;
  if (!p.defined() && (balance_weight(moe) > 0 || moe.variance_weight > 0)) p = softmax(ctx, routing.logits);
  if (balance_weight(moe) > 0) add_term("balance", switch_balance(ctx, p, routing.plan.expert_ids, weights), balance_weight(moe));
  if (moe.z_weight > 0) add_term("z", z_loss(ctx, routing.logits, weights), moe.z_weight);
  if (moe.simbal_weight > 0) add_term("simbal", orthonormality_loss(ctx, routing.matrix), moe.simbal_weight);
  if (moe.variance_weight > 0) add_term("variance", score_variance_loss(ctx, p, weights), moe.variance_weight);
}

void add_output_losses(const ExecContext& ctx, const MoeConfig& moe, const RouterInput& in, const Variable& outputs, Routing& routing) {
  if (!ctx.training() || moe.orthogonal_output_weight == 0) return;
  const Variable overlap = output_overlap(ctx, outputs, routing.plan, weights_of_tokens(ctx, in));
  routing.losses.push_back({"overlap", scale(ctx, overlap, moe.orthogonal_output_weight)});
}

}  // namespace ermoe
