#include "models/moe.h"

#include "models/added_losses.h"
#include "models/config_rules.h"
#include "models/expert_travel.h"
#include "models/router_ermoe.h"
#include "ops/attach_loss.h"
#include "ops/combine.h"
#include "ops/dispatch.h"
#include "ops/drop_experts.h"
#include "ops/gather_slots.h"
#include "ops/matmul.h"
#include "ops/share_replicas.h"
#include "ops/tokens.h"

namespace ermoe {

MoeLayer::MoeLayer(const VitConfig& model, int64_t block)
    : dims_(expert_dims(model)),
      moe_(model.moe),
      context_(model.moe.context),
      block_(block),
      router_(make_router(model.moe, dims_, nullptr)) {
  const MoeConfig& moe = model.moe;
  // The router may own a basis that the experts are built on, and may read the experts' factors: tie both ways.
  auto* ermoe = dynamic_cast<ErmoeRouter*>(router_.get());
  Parameter* shared = ermoe != nullptr && moe.basis == Basis::disjoint ? ermoe->basis_parameter() : nullptr;
  experts_ = std::make_unique<ExpertBank>(moe, dims_, shared);
  if (ermoe != nullptr) ermoe->set_experts(experts_.get());
  replica_of_.shape = {dims_.replicas};
}

Variable MoeLayer::forward(const ExecContext& ctx, const Variable& x, const Variable& c, ForwardPass& pass, PinnedSelection& pinned) {
  const bool first_run = !pinned.made;
  const bool collect = ctx.training() || pass.collect_statistics;
  const int64_t B = x.shape()[0], T = x.shape()[1], D = x.shape()[2];
  // One view for the router and the experts: their gradients meet in it, added by the kernels that make them.
  const Variable tokens = reshape(ctx, x, {B * T, D});
  if (first_run) {
    pinned.allow = pass.allow;
    pinned.closed = pass.closed;
  }
  const Tensor allow = open_experts(ctx, pinned.allow, B * T);
  const RouterInput in{.x = tokens,
                       .c = wants_context() ? reshape(ctx, c, tokens.shape()) : Variable(),
                       .images = B,
                       .allow = allow,
                       .countable = pinned.allow,
                       .statistics = collect ? Statistics::collect : Statistics::read,
                       .closed = pinned.closed};
  Routing routing = router_->route(ctx, in, pinned);
  add_losses(ctx, moe_, in, routing);
  if (pass.shuffle_experts)
    routing.plan = make_plan(ctx, rotate_experts(ctx, pinned.selection.ids, dims_.first_replica()), dims_.all(), routing.plan.rows());
  if (dims_.replicas > 0) {
    const Tensor ids = share_with_replicas(ctx, routing.plan.expert_ids, replica_of_.value, dims_.first_replica(), T);
    routing.plan = make_plan(ctx, ids, dims_.all(), routing.plan.rows());
  }
  if (first_run) pass.routes.push_back(record_of(ctx, in, routing, pinned.selection));
  // What has experts: the tokens, or the slots that they are mixed to.
  const Variable inputs = routing.soft() ? reshape(ctx, matmul(ctx, routing.dispatch, x), {routing.plan.tokens, D}) : tokens;
  const Variable outputs = run_experts(ctx, dispatch(ctx, inputs, routing.plan), routing.plan);
  add_output_losses(ctx, moe_, in, outputs, routing);
  const Variable joined = combine(ctx, outputs, routing.weights, routing.plan);
  Variable y = routing.soft() ? matmul(ctx, routing.combine, reshape(ctx, joined, {B, routing.combine.shape()[2], D}))
                              : reshape(ctx, joined, {B, T, D});
  for (const LossTerm& term : routing.losses) {
    const bool counts = pass.loss_weight != 0 && (pass.only_loss.empty() || pass.only_loss == term.name);
    if (counts) y = attach_loss(ctx, y, term.value, pass.loss_weight);
    if (first_run) pass.losses.emplace_back(term.name, term.value.value);
  }
  return y;
}

/// Which experts tokens may go to: `allow`, but for those that are closed to this batch while training. Cluster-level dropout (MoEC: Xie
/// et al., arXiv 2207.09094): clusters are groups of neighbouring experts, and of each the same number is closed, the whole part of the
/// share times its experts, which is never all of them; so tokens of a closed expert find others of its cluster. Chosen where the
/// abstract, all that is known here of it, is silent: drawn anew for each layer and micro-batch, the same for all its tokens; scores of
/// the others are not changed.
Tensor MoeLayer::open_experts(const ExecContext& ctx, const Tensor& allow, int64_t tokens) const {
  const int64_t dropped = dropped_experts(moe_);
  if (!ctx.training() || dropped == 0) return allow;
  return drop_experts(ctx, allow, tokens, dims_.experts, moe_.expert_clusters, dropped, ctx.rng.fold(5));
}

/// Soft routing has no plan of tokens. Training records that of the slots, of which each expert has as many; an evaluation, which looks at
/// tokens, has every expert of each token by its weight in the output, the heaviest first.
RoutingRecord MoeLayer::record_of(const ExecContext& ctx, const RouterInput& in, const Routing& routing, const Selection& selection) const {
  RoutingRecord record{.block = block_,
                       .plan = routing.plan,
                       .scores = routing.scores,
                       .weights = routing.weights.value,
                       .fallback = selection.fallback,
                       .nonfinite = selection.nonfinite,
                       .soft = routing.soft(),
                       .countable = in.closed == ClosedTokens::leave_out ? in.countable : Tensor()};
  if (!routing.soft() || ctx.training()) return record;
  const Selection all =
      select_experts(ctx, {.scores = routing.scores, .order = {}, .slots = dims_.experts, .threshold = {}, .allow = {}, .free_experts = 0});
  record.plan = make_plan(ctx, all.ids, dims_.experts);
  record.weights = gather_slots(ctx, Variable(routing.scores), all.ids).value;
  return record;
}

/// Here, or on the ranks that hold them.
Variable MoeLayer::run_experts(const ExecContext& ctx, const Variable& rows, const RoutingPlan& plan) {
  if (experts_->share().holds_all()) return experts_->forward(ctx, rows, plan);
  return experts_->forward(ctx, rows, expert_travel(ctx, plan, experts_->share()));
}

void MoeLayer::share_out(const ExpertShare& share, bool saves_held) {
  experts_->share_out(share, saves_held);
  router_->share_out(share);
}

std::vector<GatheredParameter*> MoeLayer::gathered() {
  std::vector<GatheredParameter*> all = experts_->gathered();
  if (GatheredParameter* basis = router_->gathered()) all.push_back(basis);
  return all;
}

void MoeLayer::refresh(const ExecContext& ctx) {
  experts_->refresh(ctx);
  router_->refresh(ctx);
}

void MoeLayer::pull_back(const ExecContext& ctx) {
  experts_->pull_back(ctx);
  router_->pull_back(ctx);
}

void MoeLayer::after_step(const ExecContext& ctx) { experts_->after_step(ctx); }

void MoeLayer::init(const ExecContext& ctx, RngKey key) {
  router_->init(ctx, key);  // before the experts: they complete a shared basis
  experts_->init(ctx, key);
}

void MoeLayer::visit(const std::string& prefix, const Visitor& visitor) {
  router_->visit(join(prefix, "router"), visitor);
  experts_->visit(join(prefix, "experts"), visitor);
  if (dims_.replicas > 0) visitor(join(prefix, "replica_of"), replica_of_);
}

}  // namespace ermoe
