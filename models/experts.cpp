#include "models/experts.h"

#include "models/config_rules.h"
#include "models/svd.h"
#include "ops/grouped_mlp.h"
#include "ops/join_basis.h"
#include "ops/materialize.h"
#include "ops/project_off.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace ermoe {

bool keeps_orthonormal(Orthogonality mode) { return mode != Orthogonality::penalty && mode != Orthogonality::none; }

StiefelMethod stiefel_method(Orthogonality mode) {
  switch (mode) {
    case Orthogonality::gram_schmidt: return StiefelMethod::gram_schmidt;
    case Orthogonality::cholesky_qr: return StiefelMethod::cholesky_qr;
    case Orthogonality::cayley: return StiefelMethod::cayley;
    default: return StiefelMethod::newton_schulz;
  }
}

ExpertDims expert_dims(const VitConfig& model) {
  return {.width = model.width,
          .hidden = expert_hidden(model),
          .experts = model.moe.experts,
          .free_experts = model.moe.free_experts,
          .rank = factor_rank(model),
          .basis_rank = model.moe.router == RouterKind::ermoe ? basis_rank(model) : 0,
          .slots = model.moe.router == RouterKind::soft ? soft_slots(model) : 0,
          .replicas = model.moe.replicas};
}

void add_penalty(const ExecContext& ctx, Parameter& p, double weight) {
  if (p.frozen) return;
  if (!p.has_grad) fill(p.grad, 0);
  p.has_grad = true;
  add_penalty_gradient(ctx, p.value, weight, p.grad, Tensor::zeros(*ctx.allocator, {1}, DType::f64));
}

ExpertBank::ExpertBank(const MoeConfig& moe, const ExpertDims& dims, Parameter* shared_basis)
    : kind_(moe.expert), orthogonality_(moe.orthogonality), penalty_weight_(moe.penalty), dims_(dims), shared_basis_(shared_basis) {
  share_ = {.all = dims.all(), .held = {0, dims.all()}, .own = {0, dims.all()}, .held_by_expert_rank = {}, .own_by_replica = {}};
  Parameter &W1 = W1_.made_parameter(), &W2 = W2_.made_parameter();
  W1.shape = {dims.all(), dims.hidden, dims.width};
  W2.shape = {dims.all(), dims.width, dims.hidden};
  b1_.shape = {dims.all(), dims.hidden};
  b2_.shape = {dims.all(), dims.width};
  for (Parameter* p : {&W1, &W2, &b1_, &b2_}) p->expert_sharded = true;
  if (kind_ == ExpertKind::plain) {
    for (Parameter* p : {&W1, &W2}) {
      p->role = Parameter::Role::direct;
      p->decay = true;
    }
  } else {
    declare_factors(moe);
  }
}

void ExpertBank::declare_factors(const MoeConfig& moe) {
  W1_.made_parameter().narrow_grad = W2_.made_parameter().narrow_grad = true;  // `materialize` reads them in what it computes in
  const int64_t D = dims_.width, F = dims_.hidden, E = dims_.experts, Ef = dims_.free_experts, r = dims_.rank, R = dims_.basis_rank;
  const bool short_steps = moe.orthogonality == Orthogonality::newton_schulz;  // whose direction is bf16
  factors_.U1.narrow_grad = factors_.V2.narrow_grad = F > D && short_steps;    // and can write the larger factor's so
  factors_.U1.shape = {E + Ef, F, r};
  factors_.s1.shape = {E + Ef, r};
  factors_.V1.shape = shared_basis_ != nullptr ? Shape{E, D, r - R} : Shape{E + Ef, D, r};
  factors_.free_V1.shape = {Ef, D, r};
  factors_.U2.shape = {E + Ef, D, r};
  factors_.s2.shape = {E + Ef, r};
  factors_.V2.shape = {E + Ef, F, r};
  for (Parameter* p : {&factors_.U1, &factors_.V1, &factors_.free_V1, &factors_.U2, &factors_.V2})
    p->orthonormal = keeps_orthonormal(moe.orthogonality);
  for (Parameter* p : {&factors_.s1, &factors_.s2}) p->decay = moe.decay_scales;
  for (Parameter* p : {&factors_.U1, &factors_.s1, &factors_.V1, &factors_.free_V1, &factors_.U2, &factors_.s2, &factors_.V2}) {
    p->role = Parameter::Role::factor;
    p->expert_sharded = true;
  }
}

void ExpertBank::share_out(const ExpertShare& share, bool saves_held) {
  share_ = share;
  const auto keep = [](Parameter& p, const ExpertRange& part, int64_t all) {
    p.shape = p.shape.with(0, part.count);
    p.expert_offset = part.first;
    p.experts_of_all = all;
  };
  const int64_t E = dims_.experts, Ef = dims_.free_experts;
  std::vector<Parameter*> held{&b1_, &b2_};
  if (!eigen()) held.insert(held.end(), {&W1_.made_parameter(), &W2_.made_parameter()});
  for (Parameter* p : held) {
    keep(*p, share.held, share.all);
    p->saves = saves_held;
  }
  if (!eigen()) return;
  for (Parameter* p : {&factors_.U1, &factors_.s1, &factors_.U2, &factors_.s2, &factors_.V2}) keep(*p, share.own, share.all);
  const ExpertRange scored = share.own.below(E);
  if (shared_basis_ == nullptr) {
    keep(factors_.V1, share.own, share.all);
  } else {
    keep(factors_.V1, scored, E);
    if (Ef > 0) keep(factors_.free_V1, {std::max(share.own.first, E) - E, share.own.count - scored.count}, Ef);
  }
  for (GatheredParameter* w : gathered()) w->share_out(share);
}

Variable ExpertBank::forward(const ExecContext& ctx, const Variable& rows, const RoutingPlan& plan) {
  return grouped_mlp(ctx, rows, {.w1 = W1_.parameter(), .b1 = b1_, .w2 = W2_.parameter(), .b2 = b2_}, plan);
}

Variable ExpertBank::forward(const ExecContext& ctx, const Variable& rows, const RowTravel& travel) {
  return spread_mlp(ctx, *ctx.expert_ranks, rows, {.w1 = W1_.parameter(), .b1 = b1_, .w2 = W2_.parameter(), .b2 = b2_}, travel);
}

Variable ExpertBank::right_factor(const ExecContext& ctx) {
  if (shared_basis_ == nullptr) return factors_.V1;
  return join_basis(ctx, *shared_basis_, factors_.V1, dims_.free_experts > 0 ? Variable(factors_.free_V1) : Variable(), basis_part());
}

/// Which columns of the shared basis belong to the own experts.
BasisPart ExpertBank::basis_part() const { return {.first = share_.own.below(dims_.experts).first, .experts = dims_.experts}; }

std::vector<GatheredParameter*> ExpertBank::gathered() {
  if (!eigen()) return {};
  return {&W1_, &W2_};
}

std::vector<FactoredMatrix> ExpertBank::factored() {
  std::vector<FactoredMatrix> matrices;
  if (!eigen() || share_.own.count == 0) return matrices;
  if (shared_basis_ == nullptr) matrices.push_back({.w = &W1_.made_parameter(), .u = &factors_.U1, .s = &factors_.s1, .v = &factors_.V1});
  matrices.push_back({.w = &W2_.made_parameter(), .u = &factors_.U2, .s = &factors_.s2, .v = &factors_.V2});
  return matrices;
}

void ExpertBank::refresh(const ExecContext& ctx) {
  if (!eigen() || shared_basis_ == nullptr || share_.own.count == 0) return;
  const FactorTwins twins{factors_.U1.twin, {}};  // what is joined has none
  DerivedParameter& W1 = W1_.made();
  W1.refresh(ctx, [&](const ExecContext& c) { return materialize(c, factors_.U1, factors_.s1, right_factor(c), W1.place(c), twins); });
}

void ExpertBank::pull_back(const ExecContext& ctx) {
  if (!eigen()) return;
  if (shared_basis_ != nullptr) W1_.made().pull_back(ctx);
  if (orthogonality_ != Orthogonality::penalty) return;
  for (Parameter* p : {&factors_.U1, &factors_.V1, &factors_.free_V1, &factors_.U2, &factors_.V2})
    if (p->value.defined() && p->shape.numel() > 0) add_penalty(ctx, *p, penalty_weight_);
}

void ExpertBank::after_step(const ExecContext& ctx) {
  if (shared_basis_ == nullptr || !keeps_orthonormal(orthogonality_) || factors_.V1.shape.numel() == 0) return;
  if (shared_basis_->frozen && factors_.V1.frozen) return;  // neither moved
  project_off_basis(ctx, shared_basis_->value, factors_.V1.value, basis_part());
  retract(ctx, factors_.V1.value, stiefel_method(orthogonality_), factors_.V1.twin);
}

void ExpertBank::init(const ExecContext& ctx, RngKey key) {
  fill(b1_.value, 0);
  fill(b2_.value, 0);
  if (eigen()) return init_from_svd(ctx, key);
  const auto kaiming = [&](Parameter& p) { fill_normal(p.value, std::sqrt(2.0 / static_cast<double>(p.shape[2])), key_of(key, p.name)); };
  kaiming(W1_.made_parameter());
  kaiming(W2_.made_parameter());
}

/// Every expert starts as the thin SVD of a Kaiming-normal matrix, the r largest singular values kept. With a shared
/// basis, its columns replace the first R of V1 (an orthonormal completion keeps the rest orthogonal to them).
void ExpertBank::init_from_svd(const ExecContext& ctx, RngKey key) {
  const int64_t E = dims_.experts, D = dims_.width, r = dims_.rank, R = dims_.basis_rank;
  const bool shared = shared_basis_ != nullptr;
  const Tensor full = shared ? ctx.empty({dims_.all(), D, r}, factors_.U1.value.dtype(), "experts") : factors_.V1.value;
  const auto draw = [&](const Parameter& U, const Parameter& s, const Tensor& V, int64_t fan_in) {
    return FactorDraw{
        .U = U.value, .s = s.value, .V = V, .deviation = std::sqrt(2.0 / static_cast<double>(fan_in)), .key = key_of(key, U.name)};
  };
  init_factors(ctx, std::array{draw(factors_.U1, factors_.s1, full, D), draw(factors_.U2, factors_.s2, factors_.V2.value, dims_.hidden)});
  if (!shared) return;
  dispatch_float(full.dtype(), "experts", [&](auto tag) {
    using T = decltype(tag);
    for (int64_t row = 0; row < E * D; ++row) std::copy_n(full.data<T>() + row * r + R, r - R, factors_.V1.value.data<T>() + row * (r - R));
    if (dims_.free_experts > 0) std::copy_n(full.data<T>() + E * D * r, factors_.free_V1.shape.numel(), factors_.free_V1.value.data<T>());
  });
  if (r == R) return;
  // Twice: a random rest is far from orthogonal to the basis, and the polar step needs a second pass to full accuracy.
  for (int pass = 0; pass < 2; ++pass) {
    project_off_basis(ctx, shared_basis_->value, factors_.V1.value, basis_part());
    retract(ctx, factors_.V1.value, StiefelMethod::gram_schmidt);
  }
}

void ExpertBank::visit(const std::string& prefix, const Visitor& visitor) {
  W1_.visit(prefix, "W1", visitor);
  visitor(join(prefix, "b1"), b1_);
  W2_.visit(prefix, "W2", visitor);
  visitor(join(prefix, "b2"), b2_);
  if (!eigen()) return;
  visitor(join(prefix, "U1"), factors_.U1);
  visitor(join(prefix, "s1"), factors_.s1);
  visitor(join(prefix, "V1"), factors_.V1);
  if (shared_basis_ != nullptr && dims_.free_experts > 0) visitor(join(prefix, "free_V1"), factors_.free_V1);
  visitor(join(prefix, "U2"), factors_.U2);
  visitor(join(prefix, "s2"), factors_.s2);
  visitor(join(prefix, "V2"), factors_.V2);
}

}  // namespace ermoe
