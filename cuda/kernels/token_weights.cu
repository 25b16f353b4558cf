// The weights of tokens of which some are padding, on the GPU: a block a group, which counts and then writes. For the loss terms of
// baselines: clarity before speed. Contract: ops/kernels/token_weights.h.
#include "ops/kernels/token_weights.h"

#include "cuda/device/reduce.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 1024;

__global__ void __launch_bounds__(threads) token_weights_kernel(TokenWeightsDims dims, const uint8_t* allow, float* weights) {
  const int64_t rows = dims.group_rows(), first = blockIdx.x * rows, end = first + rows;
  int own = 0;
  for (int64_t n = first + threadIdx.x; n < end; n += threads) own += allow[n * dims.experts] != 0 ? 1 : 0;
  const int counted = block_sum<threads>(own);
  const auto weight = static_cast<float>(static_cast<double>(rows) / static_cast<double>(max(counted, 1)));
  for (int64_t n = first + threadIdx.x; n < end; n += threads) weights[n] = allow[n * dims.experts] != 0 ? weight : 0.0f;
}

}  // namespace

template <typename T>
void token_weights(const Stream& stream, const TokenWeightsDims& dims, const uint8_t* allow, T* weights) {
  if (dims.rows == 0) return;
  token_weights_kernel<<<static_cast<unsigned>(dims.groups), threads, 0, native(stream)>>>(dims, allow, weights);
  cuda_check(cudaGetLastError(), "token_weights");
}

template void token_weights(const Stream&, const TokenWeightsDims&, const uint8_t*, float*);

}  // namespace ermoe::cuda
