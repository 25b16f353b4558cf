// Ordering tokens on the GPU: each counts those that come before it, which is its own place, so no two write to the same. That is N²
// comparisons of numbers that lie in shared memory: below half a millisecond at 50,000 tokens, where a radix sort would want
// twelve launches. Contract: ops/kernels/rank_tokens.h.
#include "ops/kernels/rank_tokens.h"

#include "cuda/device/grid.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads) priority_kernel(RankTokensDims dims, const float* weights, float* priorities) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (n < dims.tokens) priorities[n] = priority_of(weights + n * dims.slots, dims.slots);
}

__global__ void __launch_bounds__(threads) rank_kernel(int64_t tokens, const float* priorities, int32_t* order) {
  __shared__ float others[threads];
  const int64_t n = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  const float own = n < tokens ? priorities[n] : 0;
  int place = 0;
  for (int64_t first = 0; first < tokens; first += threads) {
    if (first + threadIdx.x < tokens) others[threadIdx.x] = priorities[first + threadIdx.x];
    __syncthreads();
    const int here = static_cast<int>(min(static_cast<int64_t>(threads), tokens - first));
    const int64_t lower = n - first;  // others of this chunk with a lower number
    for (int i = 0; i < here; ++i) place += others[i] > own || (others[i] == own && i < lower);
    __syncthreads();
  }
  if (n < tokens) order[place] = static_cast<int32_t>(n);
}

}  // namespace

template <typename T>
void rank_tokens(const Stream& stream, const RankTokensDims& dims, const T* weights, int32_t* order, float* priorities) {
  if (dims.tokens == 0) return;
  const auto blocks = blocks_for(dims.tokens, threads);
  priority_kernel<<<blocks, threads, 0, native(stream)>>>(dims, weights, priorities);
  cuda_check(cudaGetLastError(), "rank_tokens: priorities");
  rank_kernel<<<blocks, threads, 0, native(stream)>>>(dims.tokens, priorities, order);
  cuda_check(cudaGetLastError(), "rank_tokens");
}

template void rank_tokens(const Stream&, const RankTokensDims&, const float*, int32_t*, float*);

}  // namespace ermoe::cuda
