// Masks of experts on the GPU: a block takes a token and counts its voxels by expert in shared memory. Contract:
// ops/kernels/region_mask.h.
#include "ops/kernels/region_mask.h"

#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 128;

template <typename Label>
__global__ void __launch_bounds__(threads)
    region_mask_kernel(RegionMaskDims dims, const Label* labels, const int32_t* starts, const int32_t* ids, uint8_t* allow) {
  extern __shared__ int counts[];  // (E)
  const int64_t n = blockIdx.x, T = dims.tokens(), b = n / T, p = n % T - dims.prefix;
  for (int64_t e = threadIdx.x; e < dims.experts; e += threads) counts[e] = 0;
  __syncthreads();
  if (p >= 0)
    for (int64_t v = threadIdx.x; v < dims.voxels_a_patch(); v += threads) {
      const int64_t label = place_of_label(labels[place_of_voxel(dims, b, p, v)], dims.labels);
      for (int32_t i = starts[label]; i < starts[label + 1]; ++i) atomicAdd(&counts[ids[i]], 1);
    }
  __syncthreads();
  for (int64_t e = threadIdx.x; e < dims.experts; e += threads) allow[n * dims.experts + e] = counts[e] >= dims.least;
}

}  // namespace

template <typename Label>
void region_mask(const Stream& stream, const RegionMaskDims& dims, const Label* labels, const int32_t* starts, const int32_t* ids,
                 uint8_t* allow) {
  if (dims.batch * dims.tokens() == 0) return;
  const auto blocks = static_cast<unsigned>(dims.batch * dims.tokens());
  const size_t shared = static_cast<size_t>(dims.experts) * sizeof(int);
  region_mask_kernel<<<blocks, threads, shared, native(stream)>>>(dims, labels, starts, ids, allow);
  cuda_check(cudaGetLastError(), "region_mask");
}

template void region_mask(const Stream&, const RegionMaskDims&, const float*, const int32_t*, const int32_t*, uint8_t*);
template void region_mask(const Stream&, const RegionMaskDims&, const int32_t*, const int32_t*, const int32_t*, uint8_t*);

}  // namespace ermoe::cuda
