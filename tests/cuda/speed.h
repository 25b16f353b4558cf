// What tests of speed share: large random operands, and the time of work on the GPU's own clock.
#pragma once

#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"
#include "tests/gpu_bench.h"

#include <algorithm>
#include <functional>
#include <vector>

namespace ermoe::testing {

inline bool is_hopper(const GpuBench& gpu) { return cuda::state_of(gpu.ctx.stream).major == 9; }

/// Random numbers: a block of them, again and again.
inline Tensor random_matrix(GpuBench& gpu, int64_t numel) {
  constexpr int64_t piece = 1 << 20;
  static const Tensor block = random_input(gpu.ctx, {{piece}}, DType::bf16, RngKey{3}).to(host_memory());
  Tensor t = gpu.ctx.empty({numel}, DType::bf16);
  for (int64_t at = 0; at < numel; at += piece) {
    const int64_t size = std::min(piece, numel - at);
    gpu.ctx.allocator->source().upload(t.data<bf16>() + at, block.data<bf16>(), static_cast<size_t>(size) * sizeof(bf16));
  }
  return t;
}

/// Median milliseconds of 21 runs after three.
inline double time_of(GpuBench& gpu, const std::function<void()>& run) {
  const cudaStream_t stream = cuda::native(gpu.ctx.stream);
  cudaEvent_t start = nullptr, stop = nullptr;
  cuda::cuda_check(cudaEventCreate(&start), "cudaEventCreate");
  cuda::cuda_check(cudaEventCreate(&stop), "cudaEventCreate");
  std::vector<float> times;
  for (int i = 0; i < 24; ++i) {
    cuda::cuda_check(cudaEventRecord(start, stream), "cudaEventRecord");
    run();
    cuda::cuda_check(cudaEventRecord(stop, stream), "cudaEventRecord");
    cuda::cuda_check(cudaEventSynchronize(stop), "cudaEventSynchronize");
    float time = 0;
    cuda::cuda_check(cudaEventElapsedTime(&time, start, stop), "cudaEventElapsedTime");
    if (i >= 3) times.push_back(time);
  }
  cudaEventDestroy(start);
  cudaEventDestroy(stop);
  std::nth_element(times.begin(), times.begin() + 10, times.end());
  return times[10];
}

}  // namespace ermoe::testing
