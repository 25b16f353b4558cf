// Closing experts on the GPU: one launch draws, another writes the mask. Contract: ops/kernels/drop_experts.h.
#include "ops/kernels/drop_experts.h"

#include "cuda/device/grid.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads) draw_kernel(DropExpertsDims dims, DrawKey drawn, uint8_t* closed) {
  const int64_t e = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (e < dims.experts) closed[e] = is_dropped(dims, drawn.resolve(), e);
}

__global__ void __launch_bounds__(threads) mask_kernel(DropExpertsDims dims, const uint8_t* closed, const uint8_t* open, uint8_t* allow) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i >= dims.tokens * dims.experts) return;
  allow[i] = closed[i % dims.experts] ? 0 : open == nullptr ? 1 : open[i];
}

}  // namespace

void drop_experts(const Stream& stream, const DropExpertsDims& dims, DrawKey drawn, const uint8_t* open, uint8_t* allow, uint8_t* closed) {
  if (dims.tokens == 0) return;
  draw_kernel<<<blocks_for(dims.experts, threads), threads, 0, native(stream)>>>(dims, drawn, closed);
  cuda_check(cudaGetLastError(), "drop_experts: draws");
  mask_kernel<<<blocks_for(dims.tokens * dims.experts, threads), threads, 0, native(stream)>>>(dims, closed, open, allow);
  cuda_check(cudaGetLastError(), "drop_experts");
}

}  // namespace ermoe::cuda
