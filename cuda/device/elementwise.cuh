// One pass over flat memory: each thread takes one pack, and the elements that fill no pack go to the first threads, one
// each. The work is a struct with `template <int V> __device__ void run(int64_t i) const` for elements i … i + V - 1.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <algorithm>

namespace ermoe::cuda {

/// For a work whose pack would cross a border, as the end of a row: element by element.
template <int V, typename Work>
__device__ __forceinline__ void one_by_one(const Work& work, int64_t i) {
#pragma unroll
  for (int k = 0; k < V; ++k) work.template run<1>(i + k);
}

inline constexpr int elementwise_threads = 256;

template <int V, typename Work>
__global__ void __launch_bounds__(elementwise_threads) elementwise_kernel(int64_t numel, Work work) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * elementwise_threads + threadIdx.x, packs = numel / V;
  if (thread < packs) work.template run<V>(thread * V);
  if (const int64_t rest = packs * V + thread; rest < numel) work.template run<1>(rest);
}

/// Runs `work` over `numel` elements in packs of 16 bytes of T, its widest type; one by one where a pointer is not aligned.
template <typename T, typename Work, typename... Pointers>
void elementwise(const Stream& stream, int64_t numel, const Work& work, const char* name, Pointers... pointers) {
  if (numel == 0) return;
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    const int64_t wanted = std::max<int64_t>(numel / V, numel % V), blocks = (wanted + elementwise_threads - 1) / elementwise_threads;
    elementwise_kernel<V><<<static_cast<unsigned>(blocks), elementwise_threads, 0, native(stream)>>>(numel, work);
    cuda_check(cudaGetLastError(), name);
  };
  if (all_aligned(pointers...)) return launch(std::integral_constant<int, pack_width<T>>{});
  launch(std::integral_constant<int, 1>{});
}

}  // namespace ermoe::cuda
