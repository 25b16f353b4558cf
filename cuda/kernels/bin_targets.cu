// Distributions over bins on the GPU: a thread an element, in double as on the CPU. Contract: ops/kernels/bin_targets.h.
#include "ops/kernels/bin_targets.h"

#include "cuda/device/grid.cuh"
#include "cuda/device/index.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 128;

template <typename T>
__global__ void __launch_bounds__(threads) bin_targets_kernel(BinTargetsDims dims, const T* numbers, T* targets) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i >= dims.batch * dims.bins) return;
  const auto [b, k] = divide(i, dims.bins);
  targets[i] = static_cast<T>(bin_target(dims, static_cast<double>(numbers[b]), k));
}

}  // namespace

template <typename T>
void bin_targets(const Stream& stream, const BinTargetsDims& dims, const T* numbers, T* targets) {
  if (dims.batch * dims.bins == 0) return;
  bin_targets_kernel<<<blocks_for(dims.batch * dims.bins, threads), threads, 0, native(stream)>>>(dims, numbers, targets);
  cuda_check(cudaGetLastError(), "bin_targets");
}

template void bin_targets(const Stream&, const BinTargetsDims&, const float*, float*);

}  // namespace ermoe::cuda
