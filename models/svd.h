// Initial factors of eigen experts: thin singular value decompositions, by LAPACK.
#pragma once

#include "core/context.h"

#include <optional>
#include <span>
#include <vector>

namespace ermoe {

/// What becomes the factors of one of the experts' matrices: U (E, m, r), s (E, r), V (E, n, r), on the host.
struct FactorDraw {
  Tensor U, s, V;
  double deviation = 1;
  RngKey key;
};

/// For each draw and expert: makes G (m, n) with normal entries of the draw's deviation and writes its r largest singular triplets,
/// G ≈ U diag(s) Vᵀ, sorted by s. All of them at once, a thread each: of large experts one takes seconds.
void init_factors(const ExecContext& ctx, std::span<const FactorDraw> draws);

/// W = U diag(s) Vᵀ of one matrix (m, n), rows side by side; s descends.
struct SingularTriplets {
  int64_t m = 0, n = 0;
  std::vector<double> U, s, Vt;  // (m, k), (k), (k, n); k = min(m, n)

  int64_t count() const { return static_cast<int64_t>(s.size()); }
};

/// Of W (m, n), f32 or f64 on the host. Nothing where the iteration does not converge, as with numbers that are not finite.
std::optional<SingularTriplets> singular_triplets(const Tensor& W);

/// Of each matrix of W (E, m, n), f32 or f64 on the host: its singular values, descending, min(m, n) of them.
std::vector<std::vector<double>> singular_values(const Tensor& W);

/// Fills Q (…, m, n), n <= m, with random orthonormal columns.
void init_orthonormal(const ExecContext& ctx, const Tensor& Q, RngKey key);

}  // namespace ermoe
