// The first of two levels of summing a quantity of each (row, expert) over rows: a block takes a chunk of rows and leaves a sum in
// double for each expert. Chunks have a fixed size and are added in order, so the sums are the same on every run.
#pragma once

#include "cuda/device/grid.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <algorithm>

namespace ermoe::cuda {

inline constexpr int partial_threads = 256;
inline constexpr int64_t chunk_rows = 256;

/// Chunks of `rows` rows.
inline __host__ __device__ int64_t chunks_of(int64_t rows) { return (rows + chunk_rows - 1) / chunk_rows; }

/// Rows of equal groups, `experts` columns.
struct PartialDims {
  int64_t groups, group_rows, experts;
};

/// A block's part, chunk blockIdx.x: partial[((group chunks + chunk) Q + q) experts + e] = Σ over the chunk's rows of quantity q.
/// `work.add(row, e, sums)` adds those of one row to sums[Q].
template <int Q, typename Work>
__device__ __forceinline__ void column_partials_of_block(const PartialDims& dims, const Work& work, double* partial) {
  __shared__ double sums[Q][partial_threads];
  const auto chunks = static_cast<unsigned>(chunks_of(dims.group_rows));
  const int64_t group = blockIdx.x / chunks, chunk = blockIdx.x % chunks;
  const int64_t begin = group * dims.group_rows + chunk * chunk_rows;
  const int64_t end = min(begin + chunk_rows, (group + 1) * dims.group_rows);
  const int thread = static_cast<int>(threadIdx.x);
  for (int64_t first = 0; first < dims.experts; first += partial_threads) {
    const int width = static_cast<int>(min(dims.experts - first, static_cast<int64_t>(partial_threads))), down = partial_threads / width;
    const int column = thread % width, lane = thread / width;
    double own[Q] = {};
    if (lane < down)
      for (int64_t row = begin + lane; row < end; row += down) work.add(row, first + column, own);
#pragma unroll
    for (int q = 0; q < Q; ++q) sums[q][thread] = own[q];
    __syncthreads();
    for (int i = thread; i < Q * width; i += partial_threads) {
      double total = 0;
      for (int l = 0; l < down; ++l) total += sums[i / width][l * width + i % width];
      partial[(static_cast<int64_t>(blockIdx.x) * Q + i / width) * dims.experts + first + i % width] = total;
    }
    __syncthreads();
  }
}

template <int Q, typename Work>
__global__ void __launch_bounds__(partial_threads) column_partials_kernel(PartialDims dims, Work work, double* partial) {
  column_partials_of_block<Q>(dims, work, partial);
}

template <int Q, typename Work>
void column_partials(const Stream& stream, const PartialDims& dims, const Work& work, double* partial, const char* name) {
  const auto blocks = static_cast<unsigned>(dims.groups * chunks_of(dims.group_rows));
  if (blocks == 0) return;
  column_partials_kernel<Q><<<blocks, partial_threads, 0, native(stream)>>>(dims, work, partial);
  cuda_check(cudaGetLastError(), name);
}

}  // namespace ermoe::cuda
