// Replicas on the GPU: a thread a slot. Contract: ops/kernels/share_replicas.h.
#include "ops/kernels/share_replicas.h"

#include "cuda/device/grid.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads) share_kernel(ReplicaDims dims, const int32_t* ids, const float* replica_of, int32_t* shared) {
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (slot < dims.tokens * dims.slots) shared[slot] = id_with_replicas(dims, replica_of, slot, ids[slot]);
}

}  // namespace

template <typename T>
void share_replicas(const Stream& stream, const ReplicaDims& dims, const int32_t* ids, const T* replica_of, int32_t* shared) {
  if (dims.tokens * dims.slots == 0) return;
  share_kernel<<<blocks_for(dims.tokens * dims.slots, threads), threads, 0, native(stream)>>>(dims, ids, replica_of, shared);
  cuda_check(cudaGetLastError(), "share_replicas");
}

template void share_replicas(const Stream&, const ReplicaDims&, const int32_t*, const float*, int32_t*);

}  // namespace ermoe::cuda
