// The first level of a sum over rows (ops/kernels/column_sum.h), bound by reading the rows once: a block takes one chunk of rows
// and up to 32 packs of columns, its warps every eighth row. What is summed comes from a `Source`, which may make it on the
// way and store it. Read next: cuda/device/sum_partials.cuh, the second level.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"
#include "ops/kernels/column_sum.h"

namespace ermoe::cuda {

inline constexpr int chunk_warps = 8, chunk_unroll = 4;

/// Source: `fetch<V>(at)` loads what V elements from index `at` on are made from, `finish<V>(at, fetched)` returns them as a
/// Pack. All of a turn is fetched before any is finished, so that several loads are on their way at once.
template <int V, typename Source>
__global__ void __launch_bounds__(warp_size* chunk_warps)
    chunk_sums_kernel(ColumnSumDims dims, int64_t chunk_rows, Source source, float* partials) {
  __shared__ float parts[chunk_warps][warp_size * V];
  const int lane = threadIdx.x, warp = threadIdx.y;
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * warp_size + lane) * V, chunk = blockIdx.y;
  const int64_t begin = chunk * chunk_rows, end = min(dims.rows, begin + chunk_rows);
  float sum[V] = {};
  const auto add = [&](const auto& pack) {
#pragma unroll
    for (int k = 0; k < V; ++k) sum[k] += widen(pack.v[k]);
  };
  if (column < dims.cols) {
    int64_t row = begin + warp;
    const auto at = [&](int u) { return (row + u * chunk_warps) * dims.stride + column; };
    for (; row + (chunk_unroll - 1) * chunk_warps < end; row += chunk_unroll * chunk_warps) {
      decltype(source.template fetch<V>(0)) in[chunk_unroll];
#pragma unroll
      for (int u = 0; u < chunk_unroll; ++u) in[u] = source.template fetch<V>(at(u));
#pragma unroll
      for (int u = 0; u < chunk_unroll; ++u) add(source.template finish<V>(at(u), in[u]));
    }
    for (; row < end; row += chunk_warps) add(source.template finish<V>(at(0), source.template fetch<V>(at(0))));
  }
#pragma unroll
  for (int k = 0; k < V; ++k) parts[warp][k * warp_size + lane] = sum[k];  // so that lanes meet no bank twice
  __syncthreads();
  for (int i = warp * warp_size + lane; i < warp_size * V; i += chunk_warps * warp_size) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < chunk_warps; ++w) total += parts[w][i];
    const int64_t to = (static_cast<int64_t>(blockIdx.x) * warp_size + i % warp_size) * V + i / warp_size;
    if (to < dims.cols) partials[chunk * dims.cols + to] = total;
  }
}

/// partials (chunks, cols) = the sums of each chunk of rows, none of the sizes zero. In packs of 16 bytes of T where the
/// widths and all pointers allow it.
template <typename T, typename Source, typename... Pointers>
void chunk_sums(const Stream& stream, const ColumnSumDims& dims, const Source& source, float* partials, const char* name,
                Pointers... pointers) {
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    constexpr int64_t width = warp_size * V;
    const dim3 grid(static_cast<unsigned>((dims.cols + width - 1) / width), static_cast<unsigned>(dims.chunks().count()));
    chunk_sums_kernel<V><<<grid, dim3(warp_size, chunk_warps), 0, native(stream)>>>(dims, dims.chunks().size(), source, partials);
    cuda_check(cudaGetLastError(), name);
  };
  constexpr int64_t V = pack_width<T>;
  if (all_aligned(pointers...) && dims.cols % V == 0 && dims.stride % V == 0) return launch(std::integral_constant<int, V>{});
  launch(std::integral_constant<int, 1>{});
}

}  // namespace ermoe::cuda
