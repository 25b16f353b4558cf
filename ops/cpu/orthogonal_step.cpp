// Stiefel steps on the CPU. A step with Newton-Schulz costs 7 m n² multiplications: qᵀa (2), q sym (2), the residual by its
// upper triangle (1), the update (2). A second residual is avoided where a bound proves that it would be small.
//
// The bound. With R = I - QᵀQ, the update gives Q' = Q (I + R/2), and since QᵀQ = I - R commutes with R,
//   I - Q'ᵀQ' = I - (I + R/2)(I - R)(I + R/2) = ¾ R² + ¼ R³.
// Let ρ be the longest row of R. By Cauchy-Schwarz |(R²)_ij| = |r_i · r_j| <= ρ² and |(R³)_ij| = |r_iᵀ R r_j| <= ρ² ‖R‖₂,
// so max |I - Q'ᵀQ'| <= ρ² (¾ + ¼ ‖R‖₂). With norms of whole matrices in place of ρ the bound would be √n or more too
// loose to be of use after a usual step.
#include "ops/kernels/orthogonal_step.h"

#include "ops/cpu/batch.h"
#include "ops/cpu/blas.h"
#include "ops/cpu/lapack.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace ermoe::cpu {
namespace {

/// What is known of a symmetric residual.
struct ResidualNorms {
  double largest = 0;   // max |R_ij|
  double row = 0;       // ρ
  double spectral = 0;  // at least ‖R‖₂: the smaller of the Frobenius norm and the largest row sum

  /// Of the residual after one update.
  double bound_after_update() const { return row * row * (0.75 + 0.25 * spectral); }
};

/// fn(element above the diagonal, its mirror image below) for every pair of a square, tile by tile: both sides of a tile
/// stay in the first cache.
template <typename T, typename Fn>
void for_each_mirrored(int64_t n, T* square, Fn fn) {
  constexpr int64_t tile = 16;
  for (int64_t i0 = 0; i0 < n; i0 += tile)
    for (int64_t j0 = 0; j0 <= i0; j0 += tile)
      for (int64_t i = i0; i < std::min(i0 + tile, n); ++i)
        for (int64_t j = j0; j < std::min(j0 + tile, i); ++j) fn(square[j * n + i], square[i * n + j]);
}

/// r (n, n) = I - qᵀq in full, with its norms.
template <typename T>
ResidualNorms residual(int64_t m, int64_t n, const T* q, T* r) {
  std::fill_n(r, n * n, T(0));
  for (int64_t i = 0; i < n; ++i) r[i * n + i] = 1;
  syrk_upper(n, m, T(-1), q, n, T(1), r, n);
  for_each_mirrored(n, r, [](const T& above, T& below) { below = above; });

  double largest = 0, row = 0, row_sum = 0, total = 0;
  bool broken = false;
  for (int64_t i = 0; i < n; ++i) {
    T high = 0, sum = 0, squares = 0;
    const T* ri = r + i * n;
#pragma omp simd reduction(max : high) reduction(+ : sum, squares)
    for (int64_t j = 0; j < n; ++j) {
      const T a = std::abs(ri[j]);
      high = a > high ? a : high;
      sum += a;
      squares += a * a;
    }
    broken |= !std::isfinite(sum);
    largest = std::max(largest, double{high});
    row = std::max(row, double{squares});
    row_sum = std::max(row_sum, double{sum});
    total += squares;
  }
  if (broken) return {.largest = NAN, .row = NAN, .spectral = NAN};
  return {.largest = largest, .row = std::sqrt(row), .spectral = std::min(std::sqrt(total), row_sum)};
}

template <typename T>
void copy_matrix(int64_t count, const T* from, T* to) {
#pragma omp parallel for simd schedule(static) if (count > 65536)
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

/// to = from + ½ from R.
template <typename T>
void newton_schulz_update(int64_t m, int64_t n, const T* from, const T* r, T* to) {
  copy_matrix(m * n, from, to);
  gemm(Trans::no, Trans::no, m, n, n, T(0.5), from, n, r, n, T(1), to, n);
}

/// Iterates from the matrix in `a` with `b` as the second buffer; returns the one that holds the result. By the bound
/// above four iterations are enough from ‖R‖₂ < ½. Beyond, more are allowed; and since the update converges for singular
/// values below √3 alone, ‖R‖₂ >= 1 is first scaled to singular values <= 1, from where it always arrives.
template <typename T>
T* newton_schulz(int64_t m, int64_t n, int iterations, T* a, T* b, T* r) {
  using Limits = NewtonSchulzLimits<T>;
  bool scaled = false;
  for (int i = 0; i < iterations; ++i) {
    const ResidualNorms norms = residual(m, n, a, r);
    if (norms.largest <= Limits::tolerance || std::isnan(norms.largest)) break;
    if (norms.spectral >= 0.5) iterations = Limits::polar_iterations;
    if (norms.spectral >= 1 && !scaled) {
      const T factor = static_cast<T>(1 / std::sqrt(1 + norms.spectral));
      for (int64_t k = 0; k < m * n; ++k) a[k] *= factor;
      scaled = true;
      continue;
    }
    newton_schulz_update(m, n, a, r, b);
    std::swap(a, b);
    if (norms.bound_after_update() <= Limits::tolerance - Limits::rounding) break;
  }
  return a;
}

/// The same in place.
template <typename T>
void newton_schulz_in_place(int64_t m, int64_t n, int iterations, T* q, T* spare, T* r) {
  const T* result = newton_schulz(m, n, iterations, q, spare, r);
  if (result != q) copy_matrix(m * n, result, q);
}

template <typename T>
void cholesky_qr(int64_t m, int64_t n, T* q, T* r) {
  for (int pass = 0; pass < 2; ++pass) {
    syrk_upper(n, m, T(1), q, n, T(0), r, n);
    if (!cholesky_upper(n, r)) return orthonormalize_columns(m, n, q);
    divide_by_upper(m, n, r, q);
  }
}

/// stepped = q - lr (a - q sym(qᵀa)).
template <typename T>
void tangent_step(int64_t m, int64_t n, T lr, const T* q, const T* a, T* s, T* stepped) {
  gemm(Trans::yes, Trans::no, n, n, m, T(1), q, n, a, n, T(0), s, n);
  for_each_mirrored(n, s, [](T& above, T& below) { above = below = T(0.5) * (below + above); });
  const int64_t count = m * n;
#pragma omp parallel for simd schedule(static) if (count > 65536)
  for (int64_t i = 0; i < count; ++i) stepped[i] = q[i] - lr * a[i];
  gemm(Trans::no, Trans::no, m, n, n, lr, q, n, s, n, T(1), stepped, n);
}

/// Wen & Yin's step: q <- (I + lr/2 W)⁻¹ (I - lr/2 W) q with W = z qᵀ - q zᵀ, z = a - ½ q qᵀa, whose first-order term is
/// the tangent step (Li, Fuxin, Todorovic, ICLR 2020). W = [z q] [q -z]ᵀ has rank 2n, so by Woodbury
///   q <- q - lr [z q] x,  (I + lr/2 [q -z]ᵀ[z q]) x = [q -z]ᵀ q,
/// a system of 2n equations that is never singular, W being skew.
template <typename T>
void cayley_step(int64_t m, int64_t n, T lr, T* q, const T* a, T* scratch) {
  T *z = scratch, *moved = z + m * n, *system = moved + m * n, *x = system + 4 * n * n;
  const int64_t wide = 2 * n;
  gemm(Trans::yes, Trans::no, n, n, m, T(1), q, n, a, n, T(0), system, n);  // qᵀa, for a moment
  copy_matrix(m * n, a, z);
  gemm(Trans::no, Trans::no, m, n, n, T(-0.5), q, n, system, n, T(1), z, n);

  gemm(Trans::yes, Trans::no, n, n, m, T(1), q, n, q, n, T(0), x, wide);  // right-hand sides as rows: [qᵀq, -qᵀz]
  gemm(Trans::yes, Trans::no, n, n, m, T(-1), q, n, z, n, T(0), x + n, wide);
  const T h = lr / 2;
  gemm(Trans::yes, Trans::no, n, n, m, h, q, n, z, n, T(0), system, wide);
  gemm(Trans::yes, Trans::no, n, n, m, h, q, n, q, n, T(0), system + n, wide);
  gemm(Trans::yes, Trans::no, n, n, m, -h, z, n, z, n, T(0), system + n * wide, wide);
  gemm(Trans::yes, Trans::no, n, n, m, -h, z, n, q, n, T(0), system + n * wide + n, wide);
  for (int64_t i = 0; i < wide; ++i) system[i * wide + i] += 1;
  solve_rows(wide, n, system, x);

  copy_matrix(m * n, q, moved);
  gemm(Trans::no, Trans::yes, m, n, n, -lr, z, n, x, wide, T(1), moved, n);
  gemm(Trans::no, Trans::yes, m, n, n, -lr, q, n, x + n, wide, T(1), moved, n);
  // Exact but for rounding, which a chain of steps would add up.
  const T* result = newton_schulz(m, n, NewtonSchulzLimits<T>::step_iterations, moved, q, system);
  if (result != q) copy_matrix(m * n, result, static_cast<T*>(q));
}

int64_t scratch_each(const StiefelDims& d, StiefelMethod method) {
  const int64_t matrix = d.rows * d.cols, square = d.cols * d.cols;
  return method == StiefelMethod::cayley ? 2 * matrix + 6 * square : matrix + square;
}

}  // namespace

int64_t stiefel_scratch(const StiefelDims& dims, StiefelMethod method) { return dims.batch * scratch_each(dims, method); }

template <typename T>
void stiefel_step(const StiefelDims& dims, StiefelMethod method, double lr, T* q, const T* direction, T* scratch) {
  const int64_t m = dims.rows, n = dims.cols, each = scratch_each(dims, method);
  for_each_matrix(dims.batch, m * n * n, [&](int64_t i) {
    T* to = q + i * m * n;
    const T* a = direction + i * m * n;
    T *stepped = scratch + i * each, *square = stepped + m * n;
    if (method == StiefelMethod::cayley) return cayley_step(m, n, static_cast<T>(lr), to, a, stepped);
    tangent_step(m, n, static_cast<T>(lr), to, a, square, stepped);
    T* result = stepped;
    if (method == StiefelMethod::newton_schulz) result = newton_schulz(m, n, NewtonSchulzLimits<T>::step_iterations, stepped, to, square);
    if (result != to) copy_matrix(m * n, result, to);
    if (method == StiefelMethod::gram_schmidt) orthonormalize_columns(m, n, to);
    if (method == StiefelMethod::cholesky_qr) cholesky_qr(m, n, to, square);
  });
}

template <typename T>
void retract(const StiefelDims& dims, StiefelMethod method, T* q, T* scratch) {
  const int64_t m = dims.rows, n = dims.cols, each = scratch_each(dims, method);
  for_each_matrix(dims.batch, m * n * n, [&](int64_t i) {
    T *to = q + i * m * n, *spare = scratch + i * each, *square = spare + m * n;
    switch (method) {
      case StiefelMethod::gram_schmidt: return orthonormalize_columns(m, n, to);
      case StiefelMethod::cholesky_qr: return cholesky_qr(m, n, to, square);
      case StiefelMethod::newton_schulz:
      case StiefelMethod::cayley: return newton_schulz_in_place(m, n, NewtonSchulzLimits<T>::step_iterations, to, spare, square);
    }
  });
}

template <typename T>
void polar_project(const StiefelDims& dims, T* q, T* scratch) {
  const int64_t m = dims.rows, n = dims.cols, each = scratch_each(dims, StiefelMethod::newton_schulz);
  for_each_matrix(dims.batch, m * n * n, [&](int64_t i) {
    T* spare = scratch + i * each;
    newton_schulz_in_place(m, n, NewtonSchulzLimits<T>::polar_iterations, q + i * m * n, spare, spare + m * n);
  });
}

template <typename T>
double orthogonality_residual(const StiefelDims& dims, const T* q, double* scratch) {
  const int64_t m = dims.rows, n = dims.cols, count = m * n;
  double *matrix = scratch, *square = scratch + count, worst = 0;
  for (int64_t i = 0; i < dims.batch; ++i) {
    const T* from = q + i * count;
#pragma omp parallel for simd schedule(static) if (count > 65536)
    for (int64_t k = 0; k < count; ++k) matrix[k] = from[k];
    const double largest = residual(m, n, matrix, square).largest;
    if (!(largest <= worst)) worst = largest;  // a NaN stays
    if (std::isnan(worst)) break;
  }
  return worst;
}

template <typename T>
double penalty_gradient(const StiefelDims& dims, const T* q, double lambda, T* dq, T* scratch) {
  const int64_t m = dims.rows, n = dims.cols, each = scratch_each(dims, StiefelMethod::newton_schulz);
  std::vector<double> squares(static_cast<size_t>(dims.batch));
  for_each_matrix(dims.batch, m * n * n, [&](int64_t i) {
    const T* from = q + i * m * n;
    T* r = scratch + i * each;
    residual(m, n, from, r);
    double sum = 0;
    for (int64_t k = 0; k < n * n; ++k) sum += double{r[k]} * double{r[k]};
    squares[static_cast<size_t>(i)] = sum;
    gemm(Trans::no, Trans::no, m, n, n, static_cast<T>(-4 * lambda), from, n, r, n, T(1), dq + i * m * n, n);
  });
  double penalty = 0;
  for (double sum : squares) penalty += lambda * sum;
  return penalty;
}

template void stiefel_step(const StiefelDims&, StiefelMethod, double, float*, const float*, float*);
template void stiefel_step(const StiefelDims&, StiefelMethod, double, double*, const double*, double*);
template void retract(const StiefelDims&, StiefelMethod, float*, float*);
template void retract(const StiefelDims&, StiefelMethod, double*, double*);
template void polar_project(const StiefelDims&, float*, float*);
template void polar_project(const StiefelDims&, double*, double*);
template double orthogonality_residual(const StiefelDims&, const float*, double*);
template double orthogonality_residual(const StiefelDims&, const double*, double*);
template double penalty_gradient(const StiefelDims&, const float*, double, float*, float*);
template double penalty_gradient(const StiefelDims&, const double*, double, double*, double*);

}  // namespace ermoe::cpu
