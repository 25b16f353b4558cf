#include "models/matrix_bundle.h"

#include "ops/materialize.h"

#include <algorithm>
#include <array>

namespace ermoe {
namespace {

using Part = Parameter* FactoredMatrix::*;
constexpr std::array factors = {&FactoredMatrix::u, &FactoredMatrix::s, &FactoredMatrix::v};

bool lies_behind(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.dtype() == b.dtype() && a.shares_memory_with(b) && a.raw() + a.bytes() == b.raw();
}

const FactorGroup* group_of(const ParameterArena& arena, const Parameter* p) {
  for (const FactorGroup& group : arena.factor_groups())
    if (std::ranges::find(group.members, p) != group.members.end()) return &group;
  return nullptr;
}

int64_t largest_part(const FactoredMatrix& m) { return std::max({m.w->shape.numel(), m.u->shape.numel(), m.v->shape.numel()}); }

/// The window of `section` that begins with `first`.
Tensor from_first(const Tensor& section, const Tensor& first, const Shape& shape) {
  if (!first.defined()) return {};
  return section.window((first.raw() - section.raw()) / static_cast<int64_t>(size_of(section.dtype())), shape);
}

/// The tensor of the arena that p's gradient is a part of.
Tensor gradient_section(const ParameterArena& arena, const Parameter* p) {
  if (const FactorGroup* group = group_of(arena, p)) return group->grad;
  const bool narrow = p->role == Parameter::Role::derived && p->grad.dtype() != arena.dtype();
  return narrow ? arena.narrow_grads() : arena.grads(p->role);
}

}  // namespace

bool follows(const ParameterArena& arena, const FactoredMatrix& a, const FactoredMatrix& b) {
  if (a.w->shape != b.w->shape || !lies_behind(a.w->grad, b.w->grad)) return false;
  return std::ranges::all_of(factors, [&](Part part) {
    const Parameter *p = a.*part, *q = b.*part;
    return p->shape == q->shape && lies_behind(p->value, q->value) && lies_behind(p->twin, q->twin) && lies_behind(p->grad, q->grad) &&
           group_of(arena, p) == group_of(arena, q);
  });
}

std::vector<std::unique_ptr<MatrixBundle>> bundle_matrices(const ParameterArena& arena, std::span<const FactoredMatrix> matrices) {
  std::vector<std::unique_ptr<MatrixBundle>> bundles;
  for (size_t begin = 0, end = 0; begin < matrices.size(); begin = end) {
    const auto most =
        static_cast<size_t>(std::max<int64_t>(1, FactorGroup::most_elements / std::max<int64_t>(1, largest_part(matrices[begin]))));
    for (end = begin + 1; end < matrices.size() && end - begin < most && follows(arena, matrices[end - 1], matrices[end]);) ++end;
    const auto members = matrices.subspan(begin, end - begin);
    bundles.push_back(std::make_unique<MatrixBundle>(arena, std::vector(members.begin(), members.end())));
  }
  return bundles;
}

/// fn(parameter of all members, which part of a member it joins) for the factors.
template <typename Fn>
void MatrixBundle::each_factor(Fn&& fn) {
  fn(u_, &FactoredMatrix::u);
  fn(s_, &FactoredMatrix::s);
  fn(v_, &FactoredMatrix::v);
}

MatrixBundle::MatrixBundle(const ParameterArena& arena, std::vector<FactoredMatrix> members) : arena_(arena), members_(std::move(members)) {
  const FactoredMatrix& first = members_.front();
  w_.parameter.name = first.w->name;
  const auto joined_shape = [&](const Shape& one) { return one.with(0, one[0] * static_cast<int64_t>(members_.size())); };
  w_.parameter.shape = joined_shape(first.w->shape);
  w_.parameter.compute_dtype = first.w->compute_dtype;
  each_factor([&](Parameter& joined, Part part) {
    const Parameter* one = first.*part;
    joined.name = one->name;
    joined.shape = joined_shape(one->shape);
    joined.role = Parameter::Role::factor;
    joined.value = from_first(arena.values(Parameter::Role::factor), one->value, joined.shape);
    joined.twin = from_first(arena.twins(), one->twin, joined.shape);
  });
}

void MatrixBundle::refresh(const ExecContext& ctx) {
  each_factor([&](Parameter& joined, Part part) {
    joined.frozen = std::ranges::all_of(members_, [part](const FactoredMatrix& m) { return (m.*part)->frozen; });
  });
  w_.refresh(ctx, [&](const ExecContext& c) { return materialize(c, u_, s_, v_, w_.place(c), {u_.twin, v_.twin}); });
  const int64_t experts = members_.front().w->shape[0];
  for (size_t i = 0; i < members_.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    Parameter& w = *members_[i].w;
    w.value = w.compute = w_.parameter.value.slice(at * experts, (at + 1) * experts);
  }
}

/// Gradients are where they were taken last. A matrix that nobody used has one of zeros. Factors' own are overwritten, so that nobody
/// may have written them yet.
void MatrixBundle::join_gradients() {
  for (const FactoredMatrix& m : members_)
    for (const Part part : factors) check(!(m.*part)->has_grad, "[matrix_bundle] {} has a gradient already", (m.*part)->name);
  const auto join = [&](Parameter& joined, Part part) {
    const Parameter* one = members_.front().*part;
    joined.grad = from_first(gradient_section(arena_, one), one->grad, joined.shape);
  };
  join(w_.parameter, &FactoredMatrix::w);
  each_factor(join);
  for (const FactoredMatrix& m : members_)
    if (!m.w->has_grad) zero(m.w->grad);
}

void MatrixBundle::pull_back(const ExecContext& ctx) {
  if (std::ranges::none_of(members_, [](const FactoredMatrix& m) { return m.w->has_grad; })) return;
  join_gradients();
  w_.parameter.has_grad = true;
  each_factor([](Parameter& joined, Part) { joined.has_grad = false; });
  w_.pull_back(ctx);
  each_factor([&](Parameter& joined, Part part) {
    joined.grad = {};  // its memory belongs to the arena, which gives it back when the next step begins
    if (!joined.has_grad) return;
    for (const FactoredMatrix& m : members_) {
      if ((m.*part)->frozen) zero((m.*part)->grad);
      (m.*part)->has_grad = true;
    }
  });
}

}  // namespace ermoe
