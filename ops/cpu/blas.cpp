#include "ops/cpu/blas.h"

#include "core/error.h"

#include <cblas.h>
#include <omp.h>

#include <algorithm>
#include <limits>

namespace ermoe::cpu {
namespace {

int narrow(int64_t size) {
  check(size <= std::numeric_limits<int>::max(), "[gemm] a size of {} is beyond BLAS's 32 bits", size);
  return static_cast<int>(size);
}
CBLAS_TRANSPOSE op(Trans t) { return t == Trans::yes ? CblasTrans : CblasNoTrans; }
/// BLAS refuses a leading dimension of zero even for empty matrices.
int leading(int64_t ld) { return narrow(ld < 1 ? 1 : ld); }

void one_gemm(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const float* b, int64_t ldb,
              float beta, float* c, int64_t ldc) {
  cblas_sgemm(CblasRowMajor, op(ta), op(tb), narrow(m), narrow(n), narrow(k), alpha, a, leading(lda), b, leading(ldb), beta, c,
              leading(ldc));
}
void one_gemm(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, double alpha, const double* a, int64_t lda, const double* b, int64_t ldb,
              double beta, double* c, int64_t ldc) {
  cblas_dgemm(CblasRowMajor, op(ta), op(tb), narrow(m), narrow(n), narrow(k), alpha, a, leading(lda), b, leading(ldb), beta, c,
              leading(ldc));
}

void one_syrk(int64_t n, int64_t k, float alpha, const float* a, int64_t lda, float beta, float* c, int64_t ldc) {
  cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, narrow(n), narrow(k), alpha, a, leading(lda), beta, c, leading(ldc));
}
void one_syrk(int64_t n, int64_t k, double alpha, const double* a, int64_t lda, double beta, double* c, int64_t ldc) {
  cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, narrow(n), narrow(k), alpha, a, leading(lda), beta, c, leading(ldc));
}

/// Threads for a product of this many multiplications: below, starting them costs more than they bring.
int threads_for(int64_t multiplications) {
  constexpr int64_t too_small = int64_t{1} << 20;
  return multiplications < too_small || omp_in_parallel() ? 1 : omp_get_max_threads();
}

/// Start of part i of `parts` of n, on multiples of 16 so that no part but the last has ragged edges.
int64_t part_begin(int64_t n, int64_t parts, int64_t i) { return i >= parts ? n : n * i / parts / 16 * 16; }

/// Parts of rows such that rows x columns parts = `threads` repack the operands least: each row part packs all of op(B)'s
/// share of columns, each column part all of op(A)'s share of rows.
int row_parts(int threads, int64_t m, int64_t n) {
  int best = 1;
  const auto cost = [&](int rows) { return static_cast<double>(threads / rows) * static_cast<double>(m) + rows * static_cast<double>(n); };
  for (int rows = 1; rows <= threads; ++rows)
    if (threads % rows == 0 && cost(rows) < cost(best)) best = rows;
  return best;
}

/// Our own threads over blocks of C, each a product by one thread of BLAS: BLAS's own threads wait for each other inside
/// every product.
template <typename T>
void split_gemm(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b, int64_t ldb, T beta,
                T* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  const int threads = threads_for(m * n * std::max<int64_t>(k, 1));
  if (threads == 1) return one_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  const int rows = row_parts(threads, m, n), columns = threads / rows;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; ++part) {
    const int64_t i = part_begin(m, rows, part / columns), i_end = part_begin(m, rows, part / columns + 1);
    const int64_t j = part_begin(n, columns, part % columns), j_end = part_begin(n, columns, part % columns + 1);
    if (i == i_end || j == j_end) continue;
    const T* own_a = a + (ta == Trans::yes ? i : i * lda);
    const T* own_b = b + (tb == Trans::yes ? j * ldb : j);
    one_gemm(ta, tb, i_end - i, j_end - j, k, alpha, own_a, lda, own_b, ldb, beta, c + i * ldc + j, ldc);
  }
}

/// The same for a triangle: tiles of the diagonal are syrk, those above are gemm.
template <typename T>
void split_syrk(int64_t n, int64_t k, T alpha, const T* a, int64_t lda, T beta, T* c, int64_t ldc) {
  if (n == 0) return;
  const int threads = threads_for(n * n * std::max<int64_t>(k, 1) / 2);
  if (threads == 1) return one_syrk(n, k, alpha, a, lda, beta, c, ldc);
  const int64_t parts = threads == 2 ? 2 : 4;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t tile = parts * parts - 1; tile >= 0; --tile) {
    const int64_t i = part_begin(n, parts, tile / parts), i_end = part_begin(n, parts, tile / parts + 1);
    const int64_t j = part_begin(n, parts, tile % parts), j_end = part_begin(n, parts, tile % parts + 1);
    if (j < i || i == i_end || j == j_end) continue;
    T* own = c + i * ldc + j;
    if (i == j)
      one_syrk(i_end - i, k, alpha, a + i, lda, beta, own, ldc);
    else
      one_gemm(Trans::yes, Trans::no, i_end - i, j_end - j, k, alpha, a + i, lda, a + j, lda, beta, own, ldc);
  }
}

}  // namespace

void gemm(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const float* b, int64_t ldb,
          float beta, float* c, int64_t ldc) {
  split_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void gemm(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, double alpha, const double* a, int64_t lda, const double* b, int64_t ldb,
          double beta, double* c, int64_t ldc) {
  split_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void syrk_upper(int64_t n, int64_t k, float alpha, const float* a, int64_t lda, float beta, float* c, int64_t ldc) {
  split_syrk(n, k, alpha, a, lda, beta, c, ldc);
}
void syrk_upper(int64_t n, int64_t k, double alpha, const double* a, int64_t lda, double beta, double* c, int64_t ldc) {
  split_syrk(n, k, alpha, a, lda, beta, c, ldc);
}

}  // namespace ermoe::cpu
