// CBLAS under one name for float and double, row-major, spread over OpenMP threads by blocks of the result. Sizes are checked
// to fit BLAS's int. Results repeat bit for bit with the same number of threads.
#pragma once

#include "ops/kernels/trans.h"

#include <cstdint>

namespace ermoe::cpu {

using ermoe::Trans;

/// C (m, n) = alpha op(A) op(B) + beta C; op(A) is (m, k), op(B) is (k, n); ld* are row lengths as stored.
void gemm(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const float* b, int64_t ldb,
          float beta, float* c, int64_t ldc);
void gemm(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, double alpha, const double* a, int64_t lda, const double* b, int64_t ldb,
          double beta, double* c, int64_t ldc);

/// Upper triangle of C (n, n) = alpha AᵀA + beta C with A (k, n); the lower triangle is left as it is.
void syrk_upper(int64_t n, int64_t k, float alpha, const float* a, int64_t lda, float beta, float* c, int64_t ldc);
void syrk_upper(int64_t n, int64_t k, double alpha, const double* a, int64_t lda, double beta, double* c, int64_t ldc);

}  // namespace ermoe::cpu
