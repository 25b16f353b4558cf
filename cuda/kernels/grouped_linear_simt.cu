// The grouped GEMM in true float32, by fused multiply-adds (an H100 does about 60 TFLOP/s of them); bf16 comes here only
// where its rows are not aligned. A block of 256 threads makes a tile of 128x128, a thread 8x8 of it; the next slice of 16
// k is fetched into registers while the present one is multiplied out of shared memory.
#include "cuda/device/pack.cuh"
#include "cuda/kernels/grouped_linear.cuh"
#include "cuda/runtime/check.h"

namespace ermoe::cuda {
namespace {

constexpr int tile = 128, slice = 16, threads = 256, run = tile * slice / threads;
constexpr int line = tile + 4;  // keeps packs of four aligned

/// This thread's `run` elements of a slice: k-contiguous operands give 8 k of one row, the others 8 rows of one k.
template <bool ContiguousK>
__device__ __forceinline__ int own_mn() {
  return ContiguousK ? threadIdx.x % tile : threadIdx.x % (tile / run) * run;
}
template <bool ContiguousK>
__device__ __forceinline__ int own_k() {
  return ContiguousK ? threadIdx.x / tile * run : threadIdx.x / (tile / run);
}

/// `from` points to the slice; `mn` and `k` elements are left there.
template <bool ContiguousK, bool Aligned, typename T>
__device__ __forceinline__ void fetch(const T* from, int64_t pitch, int mn, int k, float (&to)[run]) {
  const int my_mn = own_mn<ContiguousK>(), my_k = own_k<ContiguousK>();
  from += ContiguousK ? my_mn * pitch + my_k : my_k * pitch + my_mn;
  const bool inside = my_mn < mn && my_k < k;
  const int left = inside ? (ContiguousK ? k - my_k : mn - my_mn) : 0;
  if (Aligned && left >= run) {
    constexpr int V = pack_width<T>;
#pragma unroll
    for (int i = 0; i < run; i += V) {
      const auto pack = load<V>(from + i);
#pragma unroll
      for (int j = 0; j < V; ++j) to[i + j] = widen(pack.v[j]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < run; ++i) to[i] = i < left ? widen(from[i]) : 0.f;
  }
}

template <bool ContiguousK>
__device__ __forceinline__ void put(float (&to)[slice][line], const float (&from)[run]) {
  const int my_mn = own_mn<ContiguousK>(), my_k = own_k<ContiguousK>();
#pragma unroll
  for (int i = 0; i < run; ++i) to[my_k + (ContiguousK ? i : 0)][my_mn + (ContiguousK ? 0 : i)] = from[i];
}

/// Values `at`, at + 1, at + 2, at + 3 and those + 64 of a line.
__device__ __forceinline__ void take(const float (&from)[line], int at, float (&to)[8]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto pack = load<4>(&from[at + 64 * half]);
#pragma unroll
    for (int i = 0; i < 4; ++i) to[4 * half + i] = pack.v[i];
  }
}

template <typename Out>
__device__ __forceinline__ void write(Out* to, float value, bool add) {
  *to = narrow<Out>(add ? widen(*to) + value : value);
}

template <Product P, typename T, typename Out, bool Aligned>
__global__ void __launch_bounds__(threads, 2) grouped_simt_kernel(GroupedProduct<T> p) {
  constexpr bool a_k = a_has_contiguous_k<P>, b_k = b_has_contiguous_k<P>;
  __shared__ alignas(16) float a[2][slice][line], b[2][slice][line];
  const GroupedTile<T> t = find_tile<P>(p, blockIdx.x, tile, tile);
  if (t.m == 0) return;
  const int64_t pitch_a = a_pitch<P>(p.dims), pitch_b = p.dims.in;
  const int64_t step_a = a_k ? slice : slice * pitch_a, step_b = b_k ? slice : slice * pitch_b;
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;  // this thread's, and those + 64
  float next_a[run], next_b[run], sum[8][8] = {};
  const int slices = (t.k + slice - 1) / slice;
  if (slices > 0) {
    fetch<a_k, Aligned>(t.a, pitch_a, t.m, t.k, next_a);
    fetch<b_k, Aligned>(t.b, pitch_b, t.n, t.k, next_b);
  }
  for (int s = 0; s < slices; ++s) {
    const int buffer = s % 2;  // a thread that writes it has passed the barrier after which all were done with it
    put<a_k>(a[buffer], next_a);
    put<b_k>(b[buffer], next_b);
    __syncthreads();
    if (s + 1 < slices) {
      const int left = t.k - (s + 1) * slice;
      fetch<a_k, Aligned>(t.a + (s + 1) * step_a, pitch_a, t.m, left, next_a);
      fetch<b_k, Aligned>(t.b + (s + 1) * step_b, pitch_b, t.n, left, next_b);
    }
#pragma unroll
    for (int k = 0; k < slice; ++k) {
      float left[8], right[8];
      take(a[buffer][k], row, left);
      take(b[buffer][k], column, right);
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[i][j] = fmaf(left[i], right[j], sum[i][j]);
    }
  }
  Out* const c = static_cast<Out*>(p.c) + t.c;
  const bool add = p.mode == Accumulate::add;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int r = row + i % 4 + i / 4 * 64;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int o = column + j % 4 + j / 4 * 64;
      if (r < t.m && o < t.n) write(c + r * columns_of<P>(p.dims) + o, sum[i][j] + (t.bias != nullptr ? widen(t.bias[o]) : 0.f), add);
    }
  }
}

}  // namespace

template <Product P, typename T, typename Out>
void grouped_simt(const Stream& stream, const GroupedProduct<T>& p) {
  const auto blocks = static_cast<unsigned>(most_tiles<P>(p.dims, tile, tile));
  const bool aligned = all_aligned(p.a, p.b) && p.dims.in % pack_width<T> == 0 && p.dims.out % pack_width<T> == 0;
  if (aligned)
    grouped_simt_kernel<P, T, Out, true><<<blocks, threads, 0, native(stream)>>>(p);
  else
    grouped_simt_kernel<P, T, Out, false><<<blocks, threads, 0, native(stream)>>>(p);
  cuda_check(cudaGetLastError(), "grouped_simt");
}

template void grouped_simt<Product::forward, float, float>(const Stream&, const GroupedProduct<float>&);
template void grouped_simt<Product::input, float, float>(const Stream&, const GroupedProduct<float>&);
template void grouped_simt<Product::weight, float, float>(const Stream&, const GroupedProduct<float>&);
template void grouped_simt<Product::forward, bf16, bf16>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_simt<Product::input, bf16, bf16>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_simt<Product::weight, bf16, float>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_simt<Product::weight, bf16, bf16>(const Stream&, const GroupedProduct<bf16>&);

}  // namespace ermoe::cuda
