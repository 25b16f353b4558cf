// Loads and stores of 16 bytes a thread: what memory-bound kernels need to reach the memory's bandwidth.
#pragma once

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

}  // namespace ermoe::cuda
