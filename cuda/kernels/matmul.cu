// Products of stacks of matrices on the GPU, by cublasLt. Contract: ops/kernels/matmul.h.
#include "ops/kernels/matmul.h"

#include "core/bf16.h"
#include "cuda/runtime/gemm.h"

namespace ermoe::cuda {

template <typename T>
void matmul(const Stream& stream, const MatmulDims& dims, const T* a, const T* b, T* c, Accumulate mode) {
  gemm(stream, packed_gemm(dims.ta, dims.tb, dims.m, dims.n, dims.k, dims.batch), 1, a, b, mode == Accumulate::add ? 1 : 0, c);
}

template void matmul(const Stream&, const MatmulDims&, const float*, const float*, float*, Accumulate);
template void matmul(const Stream&, const MatmulDims&, const bf16*, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
