// Initial factors of eigen experts: thin singular value decompositions, by LAPACK.
#pragma once

#include "core/context.h"

#include <optional>
#include <vector>

namespace ermoe {

/// For each expert e: draws G (m, n) with normal entries of the given deviation and writes its r largest singular
/// triplets, G ≈ U diag(s) Vᵀ, sorted by s: U (E, m, r), s (E, r), V (E, n, r), on the host.
void init_factors(const ExecContext& ctx, const Tensor& U, const Tensor& s, const Tensor& V, double deviation, RngKey key);

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
