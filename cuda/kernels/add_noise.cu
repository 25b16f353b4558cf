// Noise on the GPU: the same keyed numbers as on the CPU, drawn in double. In float alone, for one baseline's logits alone.
// Contract: ops/kernels/add_noise.h.
#include "ops/kernels/add_noise.h"

#include "cuda/device/grid.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads) noise_kernel(AddNoiseDims dims, DrawKey drawn, const float* x, float* y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i < dims.numel) y[i] = x[i] + static_cast<float>(dims.deviation * normal(drawn.resolve(), static_cast<uint64_t>(dims.first + i)));
}

}  // namespace

template <typename T>
void add_noise(const Stream& stream, const AddNoiseDims& dims, DrawKey drawn, const T* x, T* y) {
  if (dims.numel == 0) return;
  noise_kernel<<<blocks_for(dims.numel, threads), threads, 0, native(stream)>>>(dims, drawn, x, y);
  cuda_check(cudaGetLastError(), "add_noise");
}

template void add_noise(const Stream&, const AddNoiseDims&, DrawKey, const float*, float*);

}  // namespace ermoe::cuda
