// Rows shared out among small groups of lanes: a row of few elements takes few lanes, so that a warp works on several. The
// work is a struct with `template <int V, int Lanes> __device__ void run(int64_t row, bool valid) const`; every lane of a
// warp runs it, with `valid` false beyond the last row, since the sums within a group want all lanes.
#pragma once

#include "core/accumulate.h"
#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <type_traits>

namespace ermoe::cuda {

inline constexpr int row_threads = 256;

/// First column of this lane within its group; the next ones follow at steps of Lanes * V.
template <int V, int Lanes>
__device__ __forceinline__ int64_t first_column() {
  return static_cast<int64_t>(threadIdx.x % Lanes) * V;
}

/// Across the lanes of a group; every lane gets the result.
template <int Lanes>
__device__ __forceinline__ float group_sum(float value) {
#pragma unroll
  for (int distance = Lanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(all_lanes, value, distance);
  return value;
}
template <int Lanes>
__device__ __forceinline__ float group_max(float value) {
#pragma unroll
  for (int distance = Lanes / 2; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(all_lanes, value, distance));
  return value;
}

/// V floats beside V elements of a narrower type: in pieces of 16 bytes.
template <int V>
__device__ __forceinline__ Pack<float, V> load_floats(const float* from) {
  Pack<float, V> out;
  constexpr int piece = V < 4 ? V : 4;
#pragma unroll
  for (int k = 0; k < V; k += piece) {
    const auto part = load<piece>(from + k);
#pragma unroll
    for (int i = 0; i < piece; ++i) out.v[k + i] = part.v[i];
  }
  return out;
}

/// (+)= V values.
template <typename T, int V>
__device__ __forceinline__ void write(T* to, const float (&values)[V], Accumulate mode) {
  Pack<T, V> out;
  if (mode == Accumulate::add) {
    const auto old = load<V>(to);
#pragma unroll
    for (int i = 0; i < V; ++i) out.v[i] = narrow<T>(widen(old.v[i]) + values[i]);
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) out.v[i] = narrow<T>(values[i]);
  }
  store(to, out);
}

template <int V, int Lanes, typename Work>
__global__ void __launch_bounds__(row_threads) row_kernel(int64_t rows, Work work) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * row_threads + threadIdx.x) / Lanes;
  work.template run<V, Lanes>(row, row < rows);
}

/// Calls fn(integral constant of the fewest lanes, at least `Least`, that hold `packs` packs in one step).
template <int Least, typename Fn>
void with_lanes(int64_t packs, Fn&& fn) {
  if constexpr (Least < warp_size)
    if (packs > Least) return with_lanes<Least * 2>(packs, std::forward<Fn>(fn));
  fn(std::integral_constant<int, Least>{});
}

/// Runs `work` on `rows` rows of `cols` elements in packs of 16 bytes of T, its widest type; one by one where `cols` or a
/// pointer does not allow packs. `Least` lanes a row: warp_size where the work shares out a warp itself.
template <typename T, int Least = 1, typename Work, typename... Pointers>
void by_rows(const Stream& stream, int64_t rows, int64_t cols, const Work& work, const char* name, Pointers... pointers) {
  if (rows == 0) return;
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    with_lanes<Least>(cols / V, [&]<int Lanes>(std::integral_constant<int, Lanes>) {
      constexpr int in_block = row_threads / Lanes;
      row_kernel<V, Lanes><<<static_cast<unsigned>((rows + in_block - 1) / in_block), row_threads, 0, native(stream)>>>(rows, work);
      cuda_check(cudaGetLastError(), name);
    });
  };
  if (cols % pack_width<T> == 0 && all_aligned(pointers...)) return launch(std::integral_constant<int, pack_width<T>>{});
  launch(std::integral_constant<int, 1>{});
}

}  // namespace ermoe::cuda
