// Picking samples on the GPU: a thread copies one pack of bytes, as wide as the samples' size and addresses allow. Contract:
// ops/kernels/gather_samples.h.
#include "ops/kernels/gather_samples.h"

#include "cuda/device/grid.cuh"
#include "cuda/device/index.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

template <typename Pack>
__global__ void __launch_bounds__(threads)
    gather_kernel(GatherSamplesDims dims, int64_t packs, const Pack* samples, const int32_t* indices, Pack* picked) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i >= dims.batch * packs) return;
  const auto [b, pack] = divide(i, packs);
  const int32_t index = indices[b];
  picked[i] = index >= 0 && index < dims.samples ? samples[index * packs + pack] : Pack{};
}

template <typename Pack>
bool fits(const GatherSamplesDims& dims, const uint8_t* samples, const uint8_t* picked) {
  const auto addresses = reinterpret_cast<uintptr_t>(samples) | reinterpret_cast<uintptr_t>(picked);
  return (addresses | static_cast<uintptr_t>(dims.bytes)) % sizeof(Pack) == 0;
}

template <typename Pack>
void launch(const Stream& stream, const GatherSamplesDims& dims, const uint8_t* samples, const int32_t* indices, uint8_t* picked) {
  const int64_t packs = dims.bytes / static_cast<int64_t>(sizeof(Pack));
  gather_kernel<<<blocks_for(dims.batch * packs, threads), threads, 0, native(stream)>>>(
      dims, packs, reinterpret_cast<const Pack*>(samples), indices, reinterpret_cast<Pack*>(picked));
  cuda_check(cudaGetLastError(), "gather_samples");
}

}  // namespace

void gather_samples(const Stream& stream, const GatherSamplesDims& dims, const uint8_t* samples, const int32_t* indices, uint8_t* picked) {
  if (dims.batch * dims.bytes == 0) return;
  if (fits<uint4>(dims, samples, picked)) return launch<uint4>(stream, dims, samples, indices, picked);
  if (fits<uint32_t>(dims, samples, picked)) return launch<uint32_t>(stream, dims, samples, indices, picked);
  launch<uint8_t>(stream, dims, samples, indices, picked);
}

}  // namespace ermoe::cuda
