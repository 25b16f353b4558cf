// The residual by `mma.sync`, for GPUs from Ampere on: blocks of 256 threads, tiles of 128 x 64, three stages of 32 rows filled
// by asynchronous copies. What it computes: stiefel_residual.h.
#include "cuda/device/mma.cuh"
#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/kernels/stiefel_residual.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int tile_i = 128, tile_j = 64, depth = 32, stages = 3, flush = 4, threads = 256;
constexpr int a_bytes = depth * tile_i * 2, b_bytes = depth * tile_j * 2, stage_bytes = 2 * (a_bytes + b_bytes);

/// Byte of the 16 that hold columns c … c + 7 of row k in an operand's `Width` columns; eight rows of them meet no bank twice.
template <int Width>
__device__ __forceinline__ uint32_t place(int k, int c) {
  return static_cast<uint32_t>(k * Width * 2 + ((c / 8) ^ (k & 7)) * 16);
}

template <int Width>
__device__ __forceinline__ void copy_rows(uint32_t to, const bf16* from, int64_t n, int64_t rows, int64_t columns) {
#pragma unroll
  for (int l = 0; l < depth * Width / 8 / threads; ++l) {
    const int at = static_cast<int>(threadIdx.x) + l * threads, k = at / (Width / 8), c = at % (Width / 8) * 8;
    const bool valid = k < rows && c < columns;
    copy_async_16(to + place<Width>(k, c), valid ? from + k * n + c : from, valid);
  }
}

/// One operand's fragments for 16 rows k and 16 columns: of A where `AsA`, else of B for two groups of 8 columns.
template <int Width, bool AsA>
__device__ __forceinline__ void load_fragments(uint32_t (&to)[4], uint32_t from, int k, int c) {
  const int lane = threadIdx.x % warp_size, matrix = lane / 8, row = lane % 8;
  const int down = AsA ? matrix / 2 : matrix % 2, across = AsA ? matrix % 2 : matrix / 2;
  load_matrices_transposed(to, from + place<Width>(k + down * 8 + row, c + across * 8));
}

struct Tile {
  int64_t i0, j0;
  int warp_i, warp_j;     // 4 x 2 warps of 32 x 32
  float sum[2][4][4];     // by fragments of 16 rows and 8 columns
  float recent[2][4][4];  // in the tensor cores

  __device__ int64_t row(int f, int c) const { return i0 + warp_i * 32 + f * 16 + threadIdx.x % warp_size / 4 + (c / 2) * 8; }
  __device__ int64_t column(int g, int c) const { return j0 + warp_j * 32 + g * 8 + threadIdx.x % 4 * 2 + c % 2; }

  template <typename Fn>
  __device__ __forceinline__ void each(Fn&& fn) {
#pragma unroll
    for (int f = 0; f < 2; ++f)
#pragma unroll
      for (int g = 0; g < 4; ++g)
#pragma unroll
        for (int c = 0; c < 4; ++c) fn(f, g, c);
  }
  __device__ __forceinline__ void move_recent() {
    each([&](int f, int g, int c) {
      sum[f][g][c] += recent[f][g][c];
      recent[f][g][c] = 0;
    });
  }
  __device__ __forceinline__ void multiply(const uint32_t (&a)[2][4], const uint32_t (&b)[2][4]) {
#pragma unroll
    for (int f = 0; f < 2; ++f)
#pragma unroll
      for (int g = 0; g < 4; ++g) multiply_16x8x16(recent[f][g], a[f], b[g / 2][g % 2 * 2], b[g / 2][g % 2 * 2 + 1]);
  }
};

/// tile.sum = Σ_k q(k, i) q(k, j).
__device__ __forceinline__ void gram_tile(const Residual& work, const bf16* hi, const bf16* lo, uint32_t shared, Tile& tile) {
  const int64_t m = work.m, n = work.n, steps = (m + depth - 1) / depth;
  const bool diagonal = tile.j0 < tile.i0 + tile_i && tile.i0 < tile.j0 + tile_j;
  const auto fetch = [&](int64_t step) {
    const uint32_t to = shared + static_cast<uint32_t>(step % stages) * stage_bytes;
    const int64_t k0 = step * depth, a = k0 * n + tile.i0, b = k0 * n + tile.j0;
    if (step < steps) {
      copy_rows<tile_i>(to, hi + a, n, m - k0, n - tile.i0);
      copy_rows<tile_i>(to + a_bytes, lo + a, n, m - k0, n - tile.i0);
      copy_rows<tile_j>(to + 2 * a_bytes, hi + b, n, m - k0, n - tile.j0);
      copy_rows<tile_j>(to + 2 * a_bytes + b_bytes, lo + b, n, m - k0, n - tile.j0);
    }
    commit_copies();
  };
  tile.each([&](int f, int g, int c) { tile.sum[f][g][c] = tile.recent[f][g][c] = 0; });
  for (int step = 0; step < stages - 1; ++step) fetch(step);
  for (int64_t step = 0; step < steps; ++step) {
    wait_copies<stages - 2>();
    __syncthreads();  // this stage has come, and the one before it has been read by all
    fetch(step + stages - 1);
    const uint32_t from = shared + static_cast<uint32_t>(step % stages) * stage_bytes;
#pragma unroll
    for (int k = 0; k < depth; k += 16) {
      uint32_t a_hi[2][4], a_lo[2][4], b_hi[2][4], b_lo[2][4];
#pragma unroll
      for (int f = 0; f < 2; ++f) {
        load_fragments<tile_i, true>(a_hi[f], from, k, tile.warp_i * 32 + f * 16);
        load_fragments<tile_i, true>(a_lo[f], from + a_bytes, k, tile.warp_i * 32 + f * 16);
        load_fragments<tile_j, false>(b_hi[f], from + 2 * a_bytes, k, tile.warp_j * 32 + f * 16);
        load_fragments<tile_j, false>(b_lo[f], from + 2 * a_bytes + b_bytes, k, tile.warp_j * 32 + f * 16);
      }
      tile.multiply(a_hi, b_hi);
      tile.multiply(a_hi, b_lo);
      tile.multiply(a_lo, b_hi);
      if (diagonal) tile.multiply(a_lo, b_lo);
    }
    if (step % flush == flush - 1) tile.move_recent();
  }
  tile.move_recent();
  wait_copies<0>();
  __syncthreads();  // the stages' memory is free
}

/// The tiles that reach the upper triangle; what lies in them below it belongs to others.
__global__ void __launch_bounds__(threads, 2) residual_kernel(Residual work) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int warp = threadIdx.x / warp_size;
  const int64_t n = work.n, matrix = blockIdx.y, across = (n + tile_j - 1) / tile_j;
  Tile tile{.i0 = blockIdx.x / across * tile_i, .j0 = blockIdx.x % across * tile_j, .warp_i = warp / 2, .warp_j = warp % 2};
  if (tile.j0 + tile_j <= tile.i0) return;
  gram_tile(work, work.hi + matrix * work.m * n, work.lo + matrix * work.m * n, shared_address(memory), tile);
  bf16* const half = work.half + matrix * n * n;
  tile.each([&](int f, int g, int c) {
    const int64_t i = tile.row(f, c), j = tile.column(g, c);
    const float value = tile.sum[f][g][c];
    if (i < n && i == j) {
      work.diagonal[matrix * n + i] = 1 - value;
      half[i * n + i] = narrow<bf16>(0.0f);
    }
    if (i < j && j < n) half[i * n + j] = half[j * n + i] = narrow<bf16>(-0.5f * value);
  });
}

constexpr int rows_a_block = 8;

/// A warp takes a row of ½R, eight lanes a block of columns.
__global__ void __launch_bounds__(rows_a_block* warp_size) partials_kernel(Residual work) {
  const int64_t n = work.n, matrix = blockIdx.y, row = int64_t{blockIdx.x} * rows_a_block + threadIdx.x / warp_size;
  const int lane = threadIdx.x % warp_size;
  if (row >= n) return;
  for (int64_t first = 0; first < n; first += 8 * warp_size) {
    const int64_t column = first + lane * 8;
    float part[Residual::parts] = {};
    if (column < n) {
      const auto pack = load<8>(work.half + (matrix * n + row) * n + column);
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const float value = fabsf(2 * widen(pack.v[k]));
        part[Residual::squares] += value * value;
        part[Residual::sums] += value;
        part[Residual::largest] = fmaxf(part[Residual::largest], value);
      }
    }
    for (int distance = 1; distance < 8; distance *= 2) {
      part[Residual::squares] += __shfl_xor_sync(all_lanes, part[Residual::squares], distance);
      part[Residual::sums] += __shfl_xor_sync(all_lanes, part[Residual::sums], distance);
      part[Residual::largest] = fmaxf(part[Residual::largest], __shfl_xor_sync(all_lanes, part[Residual::largest], distance));
    }
    if (lane % 8 > 0 || column >= n) continue;
#pragma unroll
    for (int p = 0; p < Residual::parts; ++p) work.partials[work.partial_at(matrix, p, column / Residual::block, row)] = part[p];
  }
}

}  // namespace

void residual_mma(const Stream& stream, const Residual& work) {
  const int64_t down = (work.n + tile_i - 1) / tile_i, across = (work.n + tile_j - 1) / tile_j;
  const dim3 grid(static_cast<unsigned>(down * across), static_cast<unsigned>(work.batch));
  constexpr int bytes = stages * stage_bytes;
  cuda_check(cudaFuncSetAttribute(residual_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "cudaFuncSetAttribute");
  residual_kernel<<<grid, threads, bytes, native(stream)>>>(work);
  cuda_check(cudaGetLastError(), "stiefel_residual");
  const dim3 rows(static_cast<unsigned>((work.n + rows_a_block - 1) / rows_a_block), static_cast<unsigned>(work.batch));
  partials_kernel<<<rows, rows_a_block * warp_size, 0, native(stream)>>>(work);
  cuda_check(cudaGetLastError(), "stiefel_residual");
}

}  // namespace ermoe::cuda
