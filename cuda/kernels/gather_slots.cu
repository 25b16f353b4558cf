// Gathering on the GPU: a thread a slot forward, a thread a probability backward. In float alone. Contract:
// ops/kernels/gather_slots.h.
#include "ops/kernels/gather_slots.h"

#include "cuda/device/grid.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads) forward_kernel(GatherSlotsDims dims, const float* p, const int32_t* ids, float* w) {
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (slot >= dims.tokens * dims.slots) return;
  const int32_t id = ids[slot];
  w[slot] = id >= 0 && id < dims.experts ? p[slot / dims.slots * dims.experts + id] : 0.0f;
}

__global__ void __launch_bounds__(threads)
    backward_kernel(GatherSlotsDims dims, const int32_t* ids, const float* dw, float* dp, Accumulate mode) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x, token = i / dims.experts, expert = i % dims.experts;
  if (token >= dims.tokens) return;
  float gradient = mode == Accumulate::add ? dp[i] : 0.0f;
  for (int64_t slot = token * dims.slots; slot < (token + 1) * dims.slots; ++slot)
    if (ids[slot] == expert) gradient += dw[slot];
  dp[i] = gradient;
}

}  // namespace

template <typename T>
void gather_slots_forward(const Stream& stream, const GatherSlotsDims& dims, const T* p, const int32_t* ids, T* w) {
  if (dims.tokens * dims.slots == 0) return;
  forward_kernel<<<blocks_for(dims.tokens * dims.slots, threads), threads, 0, native(stream)>>>(dims, p, ids, w);
  cuda_check(cudaGetLastError(), "gather_slots_forward");
}

template <typename T>
void gather_slots_backward(const Stream& stream, const GatherSlotsDims& dims, const int32_t* ids, const T* dw, T* dp, Accumulate mode) {
  if (dims.tokens * dims.experts == 0) return;
  backward_kernel<<<blocks_for(dims.tokens * dims.experts, threads), threads, 0, native(stream)>>>(dims, ids, dw, dp, mode);
  cuda_check(cudaGetLastError(), "gather_slots_backward");
}

template void gather_slots_forward(const Stream&, const GatherSlotsDims&, const float*, const int32_t*, float*);
template void gather_slots_backward(const Stream&, const GatherSlotsDims&, const int32_t*, const float*, float*, Accumulate);

}  // namespace ermoe::cuda
