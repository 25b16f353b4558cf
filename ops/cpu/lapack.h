// The few LAPACK routines that are needed, for row-major matrices without padding, in float and double. They do not throw.
#pragma once

#include <cstdint>

namespace ermoe::cpu {

/// The upper triangle of a (n, n) becomes R with a = RᵀR. False where a is not positive definite; a is then spoilt.
bool cholesky_upper(int64_t n, float* a);
bool cholesky_upper(int64_t n, double* a);

/// a (m, n) <- a R⁻¹, R the upper triangle of r (n, n).
void divide_by_upper(int64_t m, int64_t n, const float* r, float* a);
void divide_by_upper(int64_t m, int64_t n, const double* r, double* a);

/// a (m, n), m >= n, becomes the Q of its QR factorisation with a positive diagonal of R.
void orthonormalize_columns(int64_t m, int64_t n, float* a);
void orthonormalize_columns(int64_t m, int64_t n, double* a);

/// b (k, n) holds k right-hand sides as rows and becomes the solutions x of a x = b, a (n, n); a is spoilt. A singular a
/// gives infinities or NaNs.
void solve_rows(int64_t n, int64_t k, float* a, float* b);
void solve_rows(int64_t n, int64_t k, double* a, double* b);

/// Thin singular value decomposition a = u diag(s) vt of a (m, n), which is spoilt: u (m, k), s (k) descending, vt (k, n),
/// k = min(m, n). False where LAPACK's iteration does not converge.
bool singular_vectors(int64_t m, int64_t n, double* a, double* u, double* s, double* vt);

}  // namespace ermoe::cpu
