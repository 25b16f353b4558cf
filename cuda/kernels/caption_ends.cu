// Where captions end, on the GPU: a block takes a caption, its threads look for the end token and keep the first. Contract:
// ops/kernels/caption_ends.h.
#include "ops/kernels/caption_ends.h"

#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 128;

__global__ void __launch_bounds__(threads)
    caption_ends_kernel(CaptionEndsDims dims, const int32_t* tokens, int32_t* index, uint8_t* allow) {
  __shared__ int first;
  const int64_t b = blockIdx.x, W = dims.tokens;
  if (threadIdx.x == 0) first = static_cast<int>(W) - 1;
  __syncthreads();
  for (int64_t t = threadIdx.x; t < W; t += threads)
    if (tokens[b * W + t] == dims.end_token) atomicMin(&first, static_cast<int>(t));  // whole numbers: no order changes the least
  __syncthreads();
  if (threadIdx.x == 0) index[b] = first;
  if (allow == nullptr) return;
  const int64_t open = (first + int64_t{1}) * dims.experts;
  for (int64_t i = threadIdx.x; i < W * dims.experts; i += threads) allow[b * W * dims.experts + i] = i < open;
}

}  // namespace

void caption_ends(const Stream& stream, const CaptionEndsDims& dims, const int32_t* tokens, int32_t* index, uint8_t* allow) {
  if (dims.batch == 0) return;
  caption_ends_kernel<<<static_cast<unsigned>(dims.batch), threads, 0, native(stream)>>>(dims, tokens, index, allow);
  cuda_check(cudaGetLastError(), "caption_ends");
}

}  // namespace ermoe::cuda
