// Batched products on the CPU, by BLAS. Many small matrices are shared out over threads, each product on one; few large ones
// are left to BLAS's own threads. The sizes alone decide, so the bits do not depend on the number of threads.
#include "ops/kernels/matmul.h"

#include "ops/cpu/blas.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void matmul(const MatmulDims& dims, const T* a, const T* b, T* c, Accumulate mode) {
  const auto& [batch, m, n, k, ta, tb] = dims;
  const int64_t lda = ta == Trans::yes ? m : k, ldb = tb == Trans::yes ? k : n;
  const auto product = [&](int64_t i) {
    gemm(dims.ta, dims.tb, dims.m, dims.n, dims.k, T(1), a + i * dims.m * dims.k, lda, b + i * dims.k * dims.n, ldb,
         mode == Accumulate::add ? T(1) : T(0), c + i * dims.m * dims.n, dims.n);
  };
  const bool small = std::max({m, n, k}) <= 4096 && m * n * k <= 4'000'000;  // and so nothing throws among the threads
  if (batch > 1 && small) {
#pragma omp parallel for schedule(static) if (dims.batch * dims.m * dims.n * dims.k > 262144)
    for (int64_t i = 0; i < dims.batch; ++i) product(i);
    return;
  }
  for (int64_t i = 0; i < batch; ++i) product(i);
}

template void matmul(const MatmulDims&, const float*, const float*, float*, Accumulate);
template void matmul(const MatmulDims&, const double*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
