// Sums and maxima over a warp and over a block, in a fixed order: the same bits in every run. Every thread gets the result.
#pragma once

#include <cuda_runtime.h>

namespace ermoe::cuda {

inline constexpr int warp_size = 32;
inline constexpr unsigned all_lanes = 0xffffffffu;

/// Across the lanes of a whole warp.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int distance = warp_size / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(all_lanes, value, distance);
  return value;
}
/// NaNs are passed over.
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int distance = warp_size / 2; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(all_lanes, value, distance));
  return value;
}

/// Across a block of `Threads`, all of which must call it.
template <int Threads, typename T>
__device__ __forceinline__ T block_sum(T value) {
  constexpr int warps = Threads / warp_size;
  static_assert(Threads % warp_size == 0);
  value = warp_sum(value);
  if constexpr (warps == 1) return value;
  __shared__ T parts[warps];
  __syncthreads();  // what the call before left there has been read
  if (threadIdx.x % warp_size == 0) parts[threadIdx.x / warp_size] = value;
  __syncthreads();
  T sum = parts[0];
#pragma unroll
  for (int i = 1; i < warps; ++i) sum += parts[i];
  return sum;
}
template <int Threads>
__device__ __forceinline__ float block_max(float value) {
  constexpr int warps = Threads / warp_size;
  static_assert(Threads % warp_size == 0);
  value = warp_max(value);
  if constexpr (warps == 1) return value;
  __shared__ float parts[warps];
  __syncthreads();
  if (threadIdx.x % warp_size == 0) parts[threadIdx.x / warp_size] = value;
  __syncthreads();
  float largest = parts[0];
#pragma unroll
  for (int i = 1; i < warps; ++i) largest = fmaxf(largest, parts[i]);
  return largest;
}

}  // namespace ermoe::cuda
