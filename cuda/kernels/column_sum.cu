// Column sums on the GPU, bound by reading x once. First level: a block takes one chunk of rows and up to 32 packs of columns,
// its warps every eighth row; second level: the chunks' sums, in their order. Contract: ops/kernels/column_sum.h.
#include "ops/kernels/column_sum.h"

#include "cuda/device/pack.cuh"
#include "cuda/device/sum_partials.cuh"

namespace ermoe::cuda {
namespace {

constexpr int warps = 8, unroll = 4;

template <typename T, int V>
__global__ void __launch_bounds__(warp_size* warps) chunk_sums_kernel(ColumnSumDims dims, int64_t chunk_rows, const T* x, float* partials) {
  __shared__ float parts[warps][warp_size * V];
  const int lane = threadIdx.x, warp = threadIdx.y;
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * warp_size + lane) * V, chunk = blockIdx.y;
  const int64_t begin = chunk * chunk_rows, end = min(dims.rows, begin + chunk_rows);
  float sum[V] = {};
  if (column < dims.cols) {
    int64_t row = begin + warp;
    for (; row + (unroll - 1) * warps < end; row += unroll * warps) {  // several loads on their way at once
      Pack<T, V> in[unroll];
#pragma unroll
      for (int u = 0; u < unroll; ++u) in[u] = load<V>(x + (row + u * warps) * dims.stride + column);
#pragma unroll
      for (int u = 0; u < unroll; ++u)
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += widen(in[u].v[k]);
    }
    for (; row < end; row += warps) {
      const auto in = load<V>(x + row * dims.stride + column);
#pragma unroll
      for (int k = 0; k < V; ++k) sum[k] += widen(in.v[k]);
    }
  }
#pragma unroll
  for (int k = 0; k < V; ++k) parts[warp][k * warp_size + lane] = sum[k];  // so that lanes meet no bank twice
  __syncthreads();
  for (int i = warp * warp_size + lane; i < warp_size * V; i += warps * warp_size) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < warps; ++w) total += parts[w][i];
    const int64_t at = (static_cast<int64_t>(blockIdx.x) * warp_size + i % warp_size) * V + i / warp_size;
    if (at < dims.cols) partials[chunk * dims.cols + at] = total;
  }
}

template <typename T, int V>
void chunk_sums(const Stream& stream, const ColumnSumDims& dims, const T* x, float* partials) {
  constexpr int64_t width = warp_size * V;
  const dim3 grid(static_cast<unsigned>((dims.cols + width - 1) / width), static_cast<unsigned>(dims.chunks().count()));
  chunk_sums_kernel<T, V><<<grid, dim3(warp_size, warps), 0, native(stream)>>>(dims, dims.chunks().size(), x, partials);
  cuda_check(cudaGetLastError(), "column_sum");
}

}  // namespace

template <typename T>
void column_sum(const Stream& stream, const ColumnSumDims& dims, const T* x, Master<T>* partials, Master<T>* y, Accumulate mode) {
  if (dims.cols == 0) return;
  constexpr int V = pack_width<T>;
  if (dims.rows > 0) {
    if (all_aligned(x) && dims.cols % V == 0 && dims.stride % V == 0)
      chunk_sums<T, V>(stream, dims, x, partials);
    else
      chunk_sums<T, 1>(stream, dims, x, partials);
  }
  sum_partials<1>(stream, {.chunks = dims.chunks().count(), .cols = dims.cols, .partials = partials, .sums = {{y, mode}}}, "column_sum");
}

template void column_sum(const Stream&, const ColumnSumDims&, const float*, float*, float*, Accumulate);
template void column_sum(const Stream&, const ColumnSumDims&, const bf16*, float*, float*, Accumulate);

}  // namespace ermoe::cuda
