// One pass over the rows of a matrix: each thread takes one pack of one row, and neighbouring threads neighbouring packs. For
// work that looks something up for each row (its token, its slots) and then moves it. The work is a struct with
// `template <int V> __device__ void run(int64_t row, int64_t column) const` for columns column … column + V - 1.
#pragma once

#include "cuda/device/grid.cuh"
#include "cuda/device/pack.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <algorithm>
#include <type_traits>

namespace ermoe::cuda {

inline constexpr int row_work_threads = 256;

/// Blocks of (packs of a row, rows); a row with more packs than a block has threads is walked.
template <int V, typename Work>
__global__ void __launch_bounds__(row_work_threads) row_work_kernel(int64_t rows, int64_t width, Work work) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  for (int64_t column = static_cast<int64_t>(threadIdx.x) * V; column < width; column += blockDim.x * V) work.template run<V>(row, column);
}

/// Runs `work` over `rows` of `width` elements of T in packs of 16 bytes; one by one where the width or a pointer, each the
/// start of rows of that width, does not allow it.
template <typename T, typename Work, typename... Pointers>
void row_work(const Stream& stream, int64_t rows, int64_t width, const Work& work, const char* name, Pointers... pointers) {
  if (rows == 0 || width == 0) return;
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    const auto across = static_cast<unsigned>(std::min<int64_t>(width / V, row_work_threads)), down = row_work_threads / across;
    row_work_kernel<V><<<blocks_for(rows, down), dim3(across, down), 0, native(stream)>>>(rows, width, work);
    cuda_check(cudaGetLastError(), name);
  };
  if (width % pack_width<T> == 0 && all_aligned(pointers...)) return launch(std::integral_constant<int, pack_width<T>>{});
  launch(std::integral_constant<int, 1>{});
}

}  // namespace ermoe::cuda
