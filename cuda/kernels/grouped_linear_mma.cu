// The grouped GEMM on tensor cores of Ampere and newer. A block of eight warps makes a tile of 128x128, a warp 64x32 of it;
// slices of 64 k stream through three stages of shared memory by asynchronous 16-byte copies. Within a stage the 16-byte
// chunks of a row are permuted (chunk ^ row % 8), so that neither the copies nor ldmatrix meet bank conflicts.
#include "cuda/device/mma.cuh"
#include "cuda/device/pack.cuh"
#include "cuda/kernels/grouped_linear.cuh"
#include "cuda/runtime/check.h"

namespace ermoe::cuda {
namespace {

constexpr int tile = 128, slice = 64, stages = 3, threads = 256;
constexpr int operand_bytes = tile * slice * 2, stage_bytes = 2 * operand_bytes;

/// Byte of 16-byte chunk `chunk` of row `row`: rows of 64 k, or of 128 m or n where those are contiguous.
template <bool ContiguousK>
__device__ __forceinline__ uint32_t place(int row, int chunk) {
  return row * (ContiguousK ? slice * 2 : tile * 2) + ((chunk ^ (row & 7)) << 4);
}

/// Starts the copies of one slice of an operand; what lies beyond `mn` or `k` becomes zero.
template <bool ContiguousK>
__device__ __forceinline__ void fetch(uint32_t to, const bf16* from, int64_t pitch, int mn, int k) {
  constexpr int chunks_a_row = (ContiguousK ? slice : tile) / 8;
#pragma unroll
  for (int i = 0; i < tile * slice / 8 / threads; ++i) {
    const int index = i * threads + threadIdx.x, row = index / chunks_a_row, chunk = index % chunks_a_row;
    const bool valid = ContiguousK ? row < mn && chunk * 8 < k : row < k && chunk * 8 < mn;
    copy_async_16(to + place<ContiguousK>(row, chunk), valid ? from + row * pitch + chunk * 8 : from, valid);
  }
}

/// The fragment of A for rows [m, m + 16), k in [k, k + 16).
template <bool ContiguousK>
__device__ __forceinline__ void take_a(uint32_t (&to)[4], uint32_t stage, int m, int k) {
  const int lane = threadIdx.x % 32;
  if constexpr (ContiguousK)
    load_matrices(to, stage + place<true>(m + lane % 16, k / 8 + lane / 16));
  else
    load_matrices_transposed(to, stage + place<false>(k + lane % 8 + lane / 16 * 8, m / 8 + lane / 8 % 2));
}

/// Two fragments of B, for columns [n, n + 8) and [n + 8, n + 16).
template <bool ContiguousK>
__device__ __forceinline__ void take_b(uint32_t (&to)[4], uint32_t stage, int n, int k) {
  const int lane = threadIdx.x % 32;
  if constexpr (ContiguousK)
    load_matrices(to, stage + place<true>(n + lane % 8 + lane / 16 * 8, k / 8 + lane / 8 % 2));
  else
    load_matrices_transposed(to, stage + place<false>(k + lane % 16, n / 8 + lane / 16));
}

using Sums = float[4][4][4];  // 16 rows, 8 columns, C's fragment

template <Product P>
__device__ __forceinline__ void multiply_slice(Sums& sum, uint32_t a, uint32_t b, int m, int n) {
#pragma unroll
  for (int k = 0; k < slice; k += 16) {
    uint32_t left[4][4], right[2][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) take_a<a_has_contiguous_k<P>>(left[i], a, m + 16 * i, k);
#pragma unroll
    for (int j = 0; j < 2; ++j) take_b<b_has_contiguous_k<P>>(right[j], b, n + 16 * j, k);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) multiply_16x8x16(sum[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
  }
}

template <typename Out>
__device__ __forceinline__ void write_sums(const Sums& sum, const GroupedTile<bf16>& t, Out* c, int64_t pitch, int m, int n, bool add,
                                           bool pairs) {
  const int row = m + threadIdx.x % 32 / 4, column = n + threadIdx.x % 4 * 2;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int o = column + 8 * j;
    const float b0 = t.bias != nullptr && o < t.n ? widen(t.bias[o]) : 0.f;
    const float b1 = t.bias != nullptr && o + 1 < t.n ? widen(t.bias[o + 1]) : 0.f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int r = row + 8 * i;
      if (r < t.m) write_pair(c + r * pitch + o, sum[i / 2][j][i % 2 * 2] + b0, sum[i / 2][j][i % 2 * 2 + 1] + b1, t.n - o, add, pairs);
    }
  }
}

template <Product P, typename Out>
__global__ void __launch_bounds__(threads) grouped_mma_kernel(GroupedProduct<bf16> p, bool pairs) {
  constexpr bool a_k = a_has_contiguous_k<P>, b_k = b_has_contiguous_k<P>;
  extern __shared__ __align__(1024) unsigned char memory[];
  const GroupedTile<bf16> t = find_tile<P>(p, blockIdx.x, tile, tile);
  if (t.m == 0) return;
  const int64_t pitch_a = a_pitch<P>(p.dims), pitch_b = p.dims.in;
  const int64_t step_a = a_k ? slice : slice * pitch_a, step_b = b_k ? slice : slice * pitch_b;
  const uint32_t base = shared_address(memory);
  const int slices = (t.k + slice - 1) / slice;
  const auto fetch_slice = [&](int s) {
    if (s < slices) {
      const uint32_t stage = base + s % stages * stage_bytes;
      fetch<a_k>(stage, t.a + s * step_a, pitch_a, t.m, t.k - s * slice);
      fetch<b_k>(stage + operand_bytes, t.b + s * step_b, pitch_b, t.n, t.k - s * slice);
    }
    commit_copies();  // an empty group too: the count of groups tells which slice has arrived
  };
  for (int s = 0; s < stages - 1; ++s) fetch_slice(s);

  const int warp = threadIdx.x / 32, m = warp / 4 * 64, n = warp % 4 * 32;
  Sums sum = {};
  for (int s = 0; s < slices; ++s) {
    wait_copies<stages - 2>();
    __syncthreads();  // everyone's part of slice s is here, and everyone is done with the stage that is filled next
    fetch_slice(s + stages - 1);
    const uint32_t stage = base + s % stages * stage_bytes;
    multiply_slice<P>(sum, stage, stage + operand_bytes, m, n);
  }
  wait_copies<0>();
  write_sums(sum, t, static_cast<Out*>(p.c) + t.c, columns_of<P>(p.dims), m, n, p.mode == Accumulate::add, pairs);
}

}  // namespace

template <Product P, typename Out>
void grouped_mma(const Stream& stream, const GroupedProduct<bf16>& p) {
  constexpr auto kernel = grouped_mma_kernel<P, Out>;
  const auto blocks = static_cast<unsigned>(most_tiles<P>(p.dims, tile, tile));
  const bool pairs = columns_of<P>(p.dims) % 2 == 0 && reinterpret_cast<uintptr_t>(p.c) % (2 * sizeof(Out)) == 0;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, stages * stage_bytes), "cudaFuncSetAttribute");
  kernel<<<blocks, threads, stages * stage_bytes, native(stream)>>>(p, pairs);
  cuda_check(cudaGetLastError(), "grouped_mma");
}

template void grouped_mma<Product::forward, bf16>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_mma<Product::input, bf16>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_mma<Product::weight, float>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_mma<Product::weight, bf16>(const Stream&, const GroupedProduct<bf16>&);

}  // namespace ermoe::cuda
