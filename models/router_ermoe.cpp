#include "models/router_ermoe.h"

#include "models/svd.h"
#include "ops/combine_weights.h"
#include "ops/context_cosine.h"
#include "ops/gather_slots.h"
#include "ops/leading_basis.h"
#include "ops/slice_rows.h"
#include "ops/subspace_cosine.h"
#include "ops/tokens.h"

#include <cmath>

namespace ermoe {

ErmoeRouter::ErmoeRouter(const MoeConfig& moe, const ExpertDims& dims, ExpertBank* experts)
    : moe_(moe), dims_(dims), experts_(experts), rule_(parse_threshold(moe.threshold)) {
  const int64_t D = dims.width, E = dims.experts, R = dims.basis_rank;
  own_basis_.shape = moe.basis == Basis::disjoint ? Shape{D, E * R} : Shape{E, D, R};
  own_basis_.role = Parameter::Role::factor;
  own_basis_.orthonormal = keeps_orthonormal(moe.orthogonality);
  packed_.made_parameter().shape = {E, R, D};
  temperature_.shape = {1};
  temperature_.full_precision = true;  // as the scores that it scales
  mean_x_.shape = mean_c_.shape = {D};
  score_mean_.shape = score_var_.shape = {E};
  histogram_.shape = {RouterStatsDims::bins};
  updates_.shape = {1};
}

RouterStats ErmoeRouter::stats() const {
  return {mean_x_.value, mean_c_.value, score_mean_.value, score_var_.value, histogram_.value, updates_.value};
}

Variable ErmoeRouter::score(const ExecContext& ctx, const Variable& x, const Variable& c) {
  const Tensor mean_x = moe_.center ? mean_x_.value : Tensor(), mean_c = moe_.center ? mean_c_.value : Tensor();
  if (moe_.score == Score::subspace_cosine) return subspace_cosine(ctx, x, packed_.parameter(), mean_x);
  return context_cosine(ctx, x, c, packed_.parameter(), mean_x, mean_c);
}

Tensor ErmoeRouter::threshold(const ExecContext& ctx) const {
  if (rule_.kind == ThresholdRule::Kind::none) return {};
  if (rule_.kind == ThresholdRule::Kind::quantile) return histogram_quantile(ctx, histogram_.value, rule_.value);
  Tensor t = ctx.empty({1}, score_mean_.value.dtype());
  fill(t, rule_.value);
  return t;
}

Selection ErmoeRouter::select(const ExecContext& ctx, const Tensor& scores, const Tensor& allow, const Tensor& threshold) {
  return select_experts(ctx, {.scores = scores,
                              .order = moe_.standardize ? calibrate_scores(ctx, scores, stats()) : scores,
                              .slots = moe_.top_k,
                              .threshold = threshold,
                              .allow = allow,
                              .free_experts = dims_.free_experts});
}

Routing ErmoeRouter::route(const ExecContext& ctx, const RouterInput& in, PinnedSelection& pinned) {
  const int64_t N = in.x.shape()[0], D = in.x.shape()[1];
  const Variable s = score(ctx, in.x, in.c);  // (N, E)
  if (!pinned.made) {
    pinned.threshold = threshold(ctx);
    pinned.selection = select(ctx, s.value, in.allow, pinned.threshold);
    pinned.made = true;
    if (in.statistics == Statistics::collect) {
      if (!sums_.defined()) sums_ = make_router_sums(ctx, {.N = N, .D = D, .E = dims_.experts, .K = moe_.top_k});
      accumulate_router_stats(ctx, in.x.value, in.c.value, s.value, in.countable, moe_.top_k, sums_, in.closed);
      closed_ = in.closed;
    }
  }
  Routing routing;
  routing.weights = weigh(ctx, s, pinned);
  routing.plan = make_plan(ctx, pinned.selection.ids, dims_.all());
  routing.scores = s.value;
  routing.logits = s;
  return routing;
}

Variable ErmoeRouter::weigh(const ExecContext& ctx, const Variable& s, const PinnedSelection& pinned) {
  const Tensor& ids = pinned.selection.ids;
  if (moe_.combine == Combine::share) {
    const Tensor all = ids_in_turn(ctx, {s.shape()[0], dims_.all()}, dims_.all(), 1);
    return gather_slots(ctx, combine_weights(ctx, s, all, CombineRule::softmax, pinned.threshold, temperature_), ids);
  }
  const auto rule = moe_.combine == Combine::softmax ? CombineRule::softmax
                    : moe_.combine == Combine::raw   ? CombineRule::raw
                                                     : CombineRule::normalized;
  return combine_weights(ctx, s, ids, rule, pinned.threshold, has_temperature() ? Variable(temperature_) : Variable());
}

/// A basis of the router's own stays with all ranks: it is small, and they step it alike.
void ErmoeRouter::share_out(const ExpertShare& share) {
  if (moe_.basis == Basis::leading) packed_.share_out(share.below(dims_.experts));
}

void ErmoeRouter::refresh(const ExecContext& ctx) {
  const int64_t D = dims_.width, E = dims_.experts, R = dims_.basis_rank;
  const int64_t own = packed_.made_parameter().shape[0];
  if (own == 0) return;
  packed_.made().refresh(ctx, [&](const ExecContext& c) {
    if (moe_.basis == Basis::leading) {
      const Variable V1 = experts_->factors().V1;
      return leading_basis(c, V1.shape()[0] == own ? V1 : slice_rows(c, V1, 0, own), R);
    }
    if (moe_.basis == Basis::untied) return leading_basis(c, own_basis_, R);
    const Variable columns = reshape(c, own_basis_, {1, D, E * R});  // one expert with E·R columns
    return reshape(c, leading_basis(c, columns, E * R), {E, R, D});
  });
}

void ErmoeRouter::pull_back(const ExecContext& ctx) { packed_.made().pull_back(ctx); }

/// A shared basis has both gradients now, the experts' too.
void ErmoeRouter::add_penalties(const ExecContext& ctx) {
  if (moe_.orthogonality == Orthogonality::penalty && moe_.basis != Basis::leading) add_penalty(ctx, own_basis_, moe_.penalty);
}

void ErmoeRouter::reduce_statistics(const ExecContext& ctx) {
  if (sums_.defined()) ctx.comm->all_reduce(sums_, ReduceOp::sum);
}

void ErmoeRouter::accept_step(const ExecContext& ctx) { update_statistics(ctx, moe_.momentum); }
void ErmoeRouter::replace_statistics(const ExecContext& ctx) { update_statistics(ctx, 1.0); }

void ErmoeRouter::update_statistics(const ExecContext& ctx, double momentum) {
  if (!sums_.defined()) return;
  update_router_stats(ctx, {.D = dims_.width, .E = dims_.experts, .K = moe_.top_k, .closed = closed_}, sums_, momentum, stats());
  sums_ = {};
}

void ErmoeRouter::discard_step() { sums_ = {}; }

void ErmoeRouter::init(const ExecContext& ctx, RngKey key) {
  if (moe_.basis != Basis::leading) init_orthonormal(ctx, own_basis_.value, key_of(key, own_basis_.name));
  if (has_temperature()) fill(temperature_.value, std::log(moe_.combine_scale));
  for (Buffer* b : {&mean_x_, &mean_c_, &score_mean_, &score_var_, &histogram_, &updates_}) fill(b->value, 0);
}

/// Of x, and of its context where the score wants one.
double ErmoeRouter::scoring_flops() const {
  return (wants_context() ? 4.0 : 2.0) * static_cast<double>(dims_.width * dims_.experts * dims_.basis_rank);
}

void ErmoeRouter::visit(const std::string& prefix, const Visitor& visitor) {
  if (moe_.basis != Basis::leading) visitor(join(prefix, "basis"), own_basis_);
  packed_.visit(prefix, "packed_basis", visitor);
  if (has_temperature()) visitor(join(prefix, "temperature"), temperature_);
  visitor(join(prefix, "mean_x"), mean_x_);
  visitor(join(prefix, "mean_c"), mean_c_);
  visitor(join(prefix, "score_mean"), score_mean_);
  visitor(join(prefix, "score_var"), score_var_);
  visitor(join(prefix, "histogram"), histogram_);
  visitor(join(prefix, "updates"), updates_);
}

std::unique_ptr<Router> make_ermoe_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank* experts) {
  return std::make_unique<ErmoeRouter>(moe, dims, experts);
}

}  // namespace ermoe
