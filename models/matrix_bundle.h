// Experts' matrices of several layers, made from their factors by one product where these lie side by side in memory: a layer's
// own are small, and a launch each for every layer costs a GPU as much as the work. A matrix whose neighbours do not fit is a bundle
// by itself. Read first: models/derived.h. Next: ops/materialize.h.
#pragma once

#include "autograd/memory/parameter_arena.h"
#include "models/derived.h"

#include <memory>
#include <span>
#include <vector>

namespace ermoe {

/// The matrices w (E, m, n) = u diag(s) vᵀ of one layer's experts.
struct FactoredMatrix {
  Parameter* w = nullptr;  // derived
  Parameter* u = nullptr;  // (E, m, r)
  Parameter* s = nullptr;  // (E, r)
  Parameter* v = nullptr;  // (E, n, r)
};

class MatrixBundle {
 public:
  /// `members` follow one another in the arena in all their parts, gradients included (`follows`); the arena must outlive this.
  MatrixBundle(const ParameterArena& arena, std::vector<FactoredMatrix> members);
  MatrixBundle(const MatrixBundle&) = delete;
  MatrixBundle& operator=(const MatrixBundle&) = delete;

  /// Makes every w. After every change of the factors.
  void refresh(const ExecContext& ctx);
  /// Turns the gradients of w into those of the factors, which have memory for theirs. Once a refresh.
  void pull_back(const ExecContext& ctx);

  std::span<const FactoredMatrix> members() const { return members_; }

 private:
  template <typename Fn>
  void each_factor(Fn&& fn);
  void join_gradients();

  const ParameterArena& arena_;
  std::vector<FactoredMatrix> members_;
  Parameter u_, s_, v_;  // of all members
  DerivedParameter w_;
};

/// True where all parts of `b` lie right behind those of `a`, so that both can be made together.
bool follows(const ParameterArena& arena, const FactoredMatrix& a, const FactoredMatrix& b);

/// Bundles of the matrices, as long as what lies where allows and at most about as large as a group of factors; in their order.
std::vector<std::unique_ptr<MatrixBundle>> bundle_matrices(const ParameterArena& arena, std::span<const FactoredMatrix> matrices);

}  // namespace ermoe
