#include "ops/cpu/blas.h"

#include "core/error.h"

#include <cblas.h>

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

}  // namespace

void gemm(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const float* b, int64_t ldb,
          float beta, float* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, op(ta), op(tb), narrow(m), narrow(n), narrow(k), alpha, a, leading(lda), b, leading(ldb), beta, c,
              leading(ldc));
}
void gemm(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, double alpha, const double* a, int64_t lda, const double* b, int64_t ldb,
          double beta, double* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  cblas_dgemm(CblasRowMajor, op(ta), op(tb), narrow(m), narrow(n), narrow(k), alpha, a, leading(lda), b, leading(ldb), beta, c,
              leading(ldc));
}

void syrk_upper(int64_t n, int64_t k, float alpha, const float* a, int64_t lda, float beta, float* c, int64_t ldc) {
  if (n == 0) return;
  cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, narrow(n), narrow(k), alpha, a, leading(lda), beta, c, leading(ldc));
}
void syrk_upper(int64_t n, int64_t k, double alpha, const double* a, int64_t lda, double beta, double* c, int64_t ldc) {
  if (n == 0) return;
  cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, narrow(n), narrow(k), alpha, a, leading(lda), beta, c, leading(ldc));
}

}  // namespace ermoe::cpu
