#include "models/experts.h"

#include "models/svd.h"
#include "ops/gelu.h"
#include "ops/grouped_linear.h"
#include "ops/join_basis.h"
#include "ops/materialize.h"

#include <algorithm>
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

ExpertDims resolve_expert_dims(const MoeConfig& moe, int64_t width) {
  ExpertDims dims{.width = width, .hidden = moe.hidden > 0 ? moe.hidden : 4 * width, .experts = moe.experts, .free_experts = moe.free_experts};
  const int64_t full = std::min(dims.hidden, width);
  dims.rank = moe.rank > 0 ? moe.rank : full;
  check_input(moe.experts >= 1, "moe.experts is {} but at least one expert is needed", moe.experts);
  check_input(moe.top_k >= 1 && moe.top_k <= moe.experts, "moe.top_k is {} but there are {} experts to choose from (moe.experts)", moe.top_k,
              moe.experts);
  check_input(dims.rank <= full, "moe.rank is {} but W is {}x{}, so at most {}", dims.rank, dims.hidden, width, full);
  if (moe.router != RouterKind::ermoe) return dims;

  const bool disjoint = moe.basis == Basis::disjoint;
  dims.basis_rank = moe.basis_rank;
  if (dims.basis_rank == 0) dims.basis_rank = disjoint ? width / moe.experts : std::max<int64_t>(1, width / 8 / 8 * 8);
  if (dims.basis_rank == 1 && !disjoint && moe.basis_rank == 0) dims.basis_rank = std::max<int64_t>(1, width / 8);
  check_input(dims.basis_rank >= 1, "moe.experts is {} but model.width {} leaves no basis vector for each of them", moe.experts, width);
  check_input(dims.basis_rank < width,
              "moe.basis_rank is {}, the whole model.width: in a full orthogonal basis cos(Vᵀx, Vᵀc) = cos(x, c) for every expert, so "
              "routing would see no difference between them; choose a smaller rank",
              dims.basis_rank);
  check_input(!disjoint || dims.basis_rank * moe.experts <= width,
              "moe.basis is disjoint, but moe.experts {} times moe.basis_rank {} is more than model.width {}", moe.experts, dims.basis_rank, width);
  check_input(moe.basis == Basis::untied || moe.expert == ExpertKind::eigen,
              "moe.basis is tied to the experts' factors, but moe.expert is plain and has none; use moe.basis untied");
  check_input(moe.basis == Basis::untied || dims.basis_rank <= dims.rank, "moe.basis_rank is {} but moe.rank is {}: the basis is part of V1",
              dims.basis_rank, dims.rank);
  return dims;
}

ExpertBank::ExpertBank(const MoeConfig& moe, const ExpertDims& dims, Parameter* shared_basis)
    : kind_(moe.expert), orthogonality_(moe.orthogonality), penalty_weight_(moe.penalty), dims_(dims), shared_basis_(shared_basis) {
  W1_.parameter.shape = {dims.all(), dims.hidden, dims.width};
  W2_.parameter.shape = {dims.all(), dims.width, dims.hidden};
  b1_.shape = {dims.all(), dims.hidden};
  b2_.shape = {dims.all(), dims.width};
  for (Parameter* p : {&W1_.parameter, &W2_.parameter, &b1_, &b2_}) p->expert_sharded = true;
  if (kind_ == ExpertKind::plain) {
    for (Parameter* p : {&W1_.parameter, &W2_.parameter}) {
      p->role = Parameter::Role::direct;
      p->decay = true;
    }
  } else {
    declare_factors(moe);
  }
}

void ExpertBank::declare_factors(const MoeConfig& moe) {
  const auto [D, F, E, Ef, r, R] = dims_;
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

Variable ExpertBank::forward(const ExecContext& ctx, const Variable& rows, const RoutingPlan& plan) {
  const Variable hidden = gelu(ctx, grouped_linear(ctx, rows, W1_.parameter, b1_, plan));
  return grouped_linear(ctx, hidden, W2_.parameter, b2_, plan);
}

Variable ExpertBank::right_factor(const ExecContext& ctx) {
  if (shared_basis_ == nullptr) return factors_.V1;
  return join_basis(ctx, *shared_basis_, factors_.V1, dims_.free_experts > 0 ? Variable(factors_.free_V1) : Variable());
}

void ExpertBank::refresh(const ExecContext& ctx) {
  if (!eigen()) return;
  W1_.refresh(ctx, [&](const ExecContext& c) { return materialize(c, factors_.U1, factors_.s1, right_factor(c)); });
  W2_.refresh(ctx, [&](const ExecContext& c) { return materialize(c, factors_.U2, factors_.s2, factors_.V2); });
}

void ExpertBank::pull_back(const ExecContext& ctx) {
  if (!eigen()) return;
  W1_.pull_back(ctx);
  W2_.pull_back(ctx);
  penalty_ = 0;
  if (orthogonality_ != Orthogonality::penalty) return;
  for (Parameter* p : {&factors_.U1, &factors_.V1, &factors_.U2, &factors_.V2})
    if (p->has_grad) penalty_ += penalty_gradient(ctx, p->value, penalty_weight_, p->grad);
}

void ExpertBank::after_step(const ExecContext& ctx) {
  if (shared_basis_ == nullptr || !keeps_orthonormal(orthogonality_) || factors_.V1.shape[2] == 0) return;
  project_off_basis(ctx, shared_basis_->value, factors_.V1.value);
  retract(ctx, factors_.V1.value, stiefel_method(orthogonality_));
}

void ExpertBank::init(const ExecContext& ctx, RngKey key) {
  fill(b1_.value, 0);
  fill(b2_.value, 0);
  if (eigen()) return init_from_svd(ctx, key);
  const auto kaiming = [&](Parameter& p) { fill_normal(p.value, std::sqrt(2.0 / static_cast<double>(p.shape[2])), key_of(key, p.name)); };
  kaiming(W1_.parameter);
  kaiming(W2_.parameter);
}

/// Every expert starts as the thin SVD of a Kaiming-normal matrix, the r largest singular values kept. With a shared
/// basis, its columns replace the first R of V1 (an orthonormal completion keeps the rest orthogonal to them).
void ExpertBank::init_from_svd(const ExecContext& ctx, RngKey key) {
  const auto draw = [&](Parameter& U, Parameter& s, const Tensor& V, int64_t fan_in) {
    init_factors(ctx, U.value, s.value, V, std::sqrt(2.0 / static_cast<double>(fan_in)), key_of(key, U.name));
  };
  draw(factors_.U2, factors_.s2, factors_.V2.value, dims_.hidden);
  if (shared_basis_ == nullptr) return draw(factors_.U1, factors_.s1, factors_.V1.value, dims_.width);

  const int64_t E = dims_.experts, D = dims_.width, r = dims_.rank, R = dims_.basis_rank;
  const Tensor full = ctx.empty({dims_.all(), D, r}, factors_.U1.value.dtype(), "experts");
  draw(factors_.U1, factors_.s1, full, D);
  dispatch_float(full.dtype(), "experts", [&](auto tag) {
    using T = decltype(tag);
    for (int64_t row = 0; row < E * D; ++row)
      std::copy_n(full.data<T>() + row * r + R, r - R, factors_.V1.value.data<T>() + row * (r - R));
    if (dims_.free_experts > 0) std::copy_n(full.data<T>() + E * D * r, factors_.free_V1.shape.numel(), factors_.free_V1.value.data<T>());
  });
  if (r == R) return;
  // Twice: a random rest is far from orthogonal to the basis, and the polar step needs a second pass to full accuracy.
  for (int pass = 0; pass < 2; ++pass) {
    project_off_basis(ctx, shared_basis_->value, factors_.V1.value);
    retract(ctx, factors_.V1.value, StiefelMethod::gram_schmidt);
  }
}

void ExpertBank::visit(const std::string& prefix, const Visitor& visitor) {
  visitor(join(prefix, "W1"), W1_.parameter);
  visitor(join(prefix, "b1"), b1_);
  visitor(join(prefix, "W2"), W2_.parameter);
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
