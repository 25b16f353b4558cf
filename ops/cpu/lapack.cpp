// LAPACK by its Fortran names, which every build of OpenBLAS carries. Fortran reads a row-major matrix as its transpose:
// an upper triangle as a lower one, a QR factorisation as an LQ one. Nothing has to be copied.
#include "ops/cpu/lapack.h"

#include <cblas.h>

#include <algorithm>
#include <cstddef>
#include <vector>

extern "C" {
void spotrf_(const char* uplo, const int* n, float* a, const int* lda, int* info, size_t);
void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* info, size_t);
void sgelqf_(const int* m, const int* n, float* a, const int* lda, float* tau, float* work, const int* lwork, int* info);
void dgelqf_(const int* m, const int* n, double* a, const int* lda, double* tau, double* work, const int* lwork, int* info);
void sorglq_(const int* m, const int* n, const int* k, float* a, const int* lda, const float* tau, float* work, const int* lwork,
             int* info);
void dorglq_(const int* m, const int* n, const int* k, double* a, const int* lda, const double* tau, double* work, const int* lwork,
             int* info);
void sgetrf_(const int* m, const int* n, float* a, const int* lda, int* pivots, int* info);
void dgetrf_(const int* m, const int* n, double* a, const int* lda, int* pivots, int* info);
void sgetrs_(const char* trans, const int* n, const int* nrhs, const float* a, const int* lda, const int* pivots, float* b, const int* ldb,
             int* info, size_t);
void dgetrs_(const char* trans, const int* n, const int* nrhs, const double* a, const int* lda, const int* pivots, double* b,
             const int* ldb, int* info, size_t);
void dgesdd_(const char* jobz, const int* m, const int* n, double* a, const int* lda, double* s, double* u, const int* ldu, double* vt,
             const int* ldvt, double* work, const int* lwork, int* iwork, int* info, size_t);
}

namespace ermoe::cpu {
namespace {

template <typename T, typename Gelqf, typename Orglq>
void orthonormalize(int64_t rows, int64_t cols, T* a, Gelqf gelqf, Orglq orglq) {
  const int m = static_cast<int>(rows), n = static_cast<int>(cols), lwork = 64 * n;
  std::vector<T> tau(static_cast<size_t>(cols)), work(static_cast<size_t>(lwork)), sign(static_cast<size_t>(cols));
  int info = 0;
  gelqf(&n, &m, a, &n, tau.data(), work.data(), &lwork, &info);
  for (int64_t i = 0; i < cols; ++i) sign[static_cast<size_t>(i)] = a[i * cols + i] < 0 ? T(-1) : T(1);
  orglq(&n, &m, &n, a, &n, tau.data(), work.data(), &lwork, &info);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) a[r * cols + c] *= sign[static_cast<size_t>(c)];
}

template <typename T, typename Getrf, typename Getrs>
void solve(int64_t size, int64_t count, T* a, T* b, Getrf getrf, Getrs getrs) {
  const int n = static_cast<int>(size), k = static_cast<int>(count);
  std::vector<int> pivots(static_cast<size_t>(size));
  int info = 0;
  getrf(&n, &n, a, &n, pivots.data(), &info);
  getrs("T", &n, &k, a, &n, pivots.data(), b, &n, &info, 1);
}

}  // namespace

bool cholesky_upper(int64_t n, float* a) {
  const int size = static_cast<int>(n);
  int info = 0;
  spotrf_("L", &size, a, &size, &info, 1);
  return info == 0;
}
bool cholesky_upper(int64_t n, double* a) {
  const int size = static_cast<int>(n);
  int info = 0;
  dpotrf_("L", &size, a, &size, &info, 1);
  return info == 0;
}

void divide_by_upper(int64_t m, int64_t n, const float* r, float* a) {
  const int rows = static_cast<int>(m), cols = static_cast<int>(n);
  cblas_strsm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, rows, cols, 1, r, cols, a, cols);
}
void divide_by_upper(int64_t m, int64_t n, const double* r, double* a) {
  const int rows = static_cast<int>(m), cols = static_cast<int>(n);
  cblas_dtrsm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, rows, cols, 1, r, cols, a, cols);
}

void orthonormalize_columns(int64_t m, int64_t n, float* a) { orthonormalize(m, n, a, sgelqf_, sorglq_); }
void orthonormalize_columns(int64_t m, int64_t n, double* a) { orthonormalize(m, n, a, dgelqf_, dorglq_); }

void solve_rows(int64_t n, int64_t k, float* a, float* b) { solve(n, k, a, b, sgetrf_, sgetrs_); }
void solve_rows(int64_t n, int64_t k, double* a, double* b) { solve(n, k, a, b, dgetrf_, dgetrs_); }

bool singular_vectors(int64_t rows, int64_t cols, double* a, double* u, double* s, double* vt) {
  // Of the transpose, as Fortran sees it: its left vectors are our right ones.
  const int m = static_cast<int>(cols), n = static_cast<int>(rows), k = std::min(m, n);
  std::vector<int> integers(static_cast<size_t>(8 * k));
  double best = 0;
  int info = 0, lwork = -1;
  dgesdd_("S", &m, &n, a, &m, s, vt, &m, u, &k, &best, &lwork, integers.data(), &info, 1);
  lwork = static_cast<int>(best);
  std::vector<double> work(static_cast<size_t>(lwork));
  dgesdd_("S", &m, &n, a, &m, s, vt, &m, u, &k, work.data(), &lwork, integers.data(), &info, 1);
  return info == 0;
}

}  // namespace ermoe::cpu
