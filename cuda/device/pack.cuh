// Loads and stores of 16 bytes a thread: what memory-bound kernels need to reach the memory's bandwidth.
#pragma once

#include "core/bf16.h"

#include <cuda_bf16.h>

#include <cstdint>

namespace ermoe::cuda {

/// V neighbouring elements, moved by one instruction where they fill 16 bytes.
template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
  T v[V];
};

/// Elements of T that 16 bytes hold.
template <typename T>
constexpr int pack_width = 16 / sizeof(T);

/// True where every pointer may be read as packs of 16 bytes.
template <typename... Pointers>
bool all_aligned(Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

template <int V, typename T>
__device__ __forceinline__ Pack<T, V> load(const T* from) {
  return *reinterpret_cast<const Pack<T, V>*>(from);
}
template <int V, typename T>
__device__ __forceinline__ void store(T* to, const Pack<T, V>& values) {
  *reinterpret_cast<Pack<T, V>*>(to) = values;
}

/// bf16 rounds to nearest even, by the hardware's instruction.
template <typename T>
__device__ __forceinline__ T narrow(float value) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return value;
  } else {
    T out;
    out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
    return out;
  }
}
/// To what a kernel computes in.
template <typename T>
__device__ __forceinline__ float widen(T value) {
  return static_cast<float>(value);
}

}  // namespace ermoe::cuda
