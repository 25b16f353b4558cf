// Taking a basis off an expert's own columns on the GPU, in exact float: 4·E·D·R·c operations once an optimizer step, 0.2 GFLOP
// at D 384, R 48, c 336, over memory that the second-level cache holds. Too thin a product for a library's tiles: a block takes
// 32 x 16 elements, so that there are enough of them. Sums go along k in stages, each of which is added as a whole: the same bits
// on every run, and less rounding than one long sum. Contract: ops/kernels/project_off.h.
#include "ops/kernels/project_off.h"

#include "cuda/device/pack.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

constexpr int tile_rows = 32, tile_columns = 16, depth = 64, threads = 256;
constexpr int pitch = depth + 4;                   // rows on 16 bytes, neighbours in other banks
constexpr int in_column = threads / tile_columns;  // threads that share a column
constexpr int rows_each = tile_rows / in_column;   // a thread's elements, `in_column` rows apart
constexpr int a_each = tile_rows * depth / threads, b_each = tile_columns * depth / threads;

/// along: products_e (R, c) = B_eᵀ rest_e, summed over D. back: rest_e (D, c) -= B_e products_e, summed over R.
enum class Half { along, back };

struct Shared {
  alignas(16) float a[tile_rows][pitch], b[tile_columns][pitch];  // both with k along rows
};

/// One tile of one expert's product, op(B_e) (m, k) times `from` (k, c). A stage's elements go to threads so that neighbours
/// read neighbouring addresses; a thread's next element lies a fixed step behind its last.
template <Half H>
struct Tile {
  static constexpr bool along = H == Half::along;
  static constexpr int across = along ? tile_rows : depth;  // elements of B_e that lie next to each other

  int64_t m, k, c, row_length;
  const float *basis, *from;  // the expert's first elements
  int64_t row0, column0;

  __device__ static int a_row(int l) { return along ? threadIdx.x % across : threadIdx.x / across + l * (threads / across); }
  __device__ static int a_depth(int l) { return along ? threadIdx.x / across + l * (threads / across) : threadIdx.x % across; }
  __device__ static int b_column() { return threadIdx.x % tile_columns; }
  __device__ static int b_depth(int l) { return threadIdx.x / tile_columns + l * in_column; }

  /// Zeros beyond the matrices.
  __device__ void fetch(int64_t k0, float (&a)[a_each], float (&b)[b_each]) const {
    const int64_t i = row0 + a_row(0), j = column0 + b_column();
    const int rows_left = static_cast<int>(min(m - row0, static_cast<int64_t>(tile_rows)));
    const int depth_left = static_cast<int>(min(k - k0, static_cast<int64_t>(depth)));
    const float* at = basis + (along ? (k0 + a_depth(0)) * row_length + i : i * row_length + k0 + a_depth(0));
#pragma unroll
    for (int l = 0; l < a_each; ++l, at += threads / across * row_length)
      a[l] = a_row(l) < rows_left && a_depth(l) < depth_left ? *at : 0.0f;
    at = from + (k0 + b_depth(0)) * c + j;
#pragma unroll
    for (int l = 0; l < b_each; ++l, at += in_column * c) b[l] = j < c && b_depth(l) < depth_left ? *at : 0.0f;
  }
  __device__ static void put(const float (&a)[a_each], const float (&b)[b_each], Shared& shared) {
#pragma unroll
    for (int l = 0; l < a_each; ++l) shared.a[a_row(l)][a_depth(l)] = a[l];
#pragma unroll
    for (int l = 0; l < b_each; ++l) shared.b[b_column()][b_depth(l)] = b[l];
  }
};

/// part_i += Σ over the first `length` of a stage, a multiple of 4.
__device__ __forceinline__ void multiply(const Shared& shared, int length, float (&part)[rows_each]) {
  const int j = static_cast<int>(threadIdx.x) % tile_columns, first = static_cast<int>(threadIdx.x) / tile_columns;
#pragma unroll 4
  for (int k = 0; k < length; k += 4) {
    const auto b = load<4>(&shared.b[j][k]);
#pragma unroll
    for (int i = 0; i < rows_each; ++i) {
      const auto a = load<4>(&shared.a[first + i * in_column][k]);
#pragma unroll
      for (int q = 0; q < 4; ++q) part[i] = fmaf(a.v[q], b.v[q], part[i]);
    }
  }
}

/// Block (tile of columns, tile of rows, expert).
template <Half H>
__global__ void __launch_bounds__(threads, 3) half_kernel(ProjectOffDims d, const float* basis, const float* from, float* to) {
  __shared__ Shared shared;
  const int64_t m = H == Half::along ? d.R : d.D, k = H == Half::along ? d.D : d.R;
  for (int64_t e = blockIdx.z; e < d.E; e += gridDim.z) {
    const Tile<H> tile{.m = m,
                       .k = k,
                       .c = d.c,
                       .row_length = d.all * d.R,
                       .basis = basis + (d.first + e) * d.R,
                       .from = from + e * k * d.c,
                       .row0 = static_cast<int64_t>(blockIdx.y) * tile_rows,
                       .column0 = static_cast<int64_t>(blockIdx.x) * tile_columns};
    float a[a_each], b[b_each], sum[rows_each] = {};
    tile.fetch(0, a, b);
    for (int64_t k0 = 0; k0 < k; k0 += depth) {
      tile.put(a, b, shared);
      __syncthreads();
      tile.fetch(k0 + depth, a, b);  // on its way while this stage is multiplied
      float part[rows_each] = {};
      multiply(shared, static_cast<int>(min(k - k0 + 3, static_cast<int64_t>(depth))) / 4 * 4, part);
#pragma unroll
      for (int i = 0; i < rows_each; ++i) sum[i] += part[i];
      __syncthreads();
    }
    const int64_t column = tile.column0 + threadIdx.x % tile_columns;
#pragma unroll
    for (int i = 0; i < rows_each; ++i) {
      const int64_t row = tile.row0 + threadIdx.x / tile_columns + i * in_column;
      if (row >= m || column >= d.c) continue;
      float* const at = to + (e * m + row) * d.c + column;
      *at = H == Half::along ? sum[i] : *at - sum[i];
    }
  }
}

template <Half H>
void run_half(const Stream& stream, const ProjectOffDims& d, const float* basis, const float* from, float* to) {
  const auto tiles = [](int64_t size, int64_t side) { return static_cast<unsigned>((size + side - 1) / side); };
  const dim3 grid(tiles(d.c, tile_columns), tiles(H == Half::along ? d.R : d.D, tile_rows),
                  static_cast<unsigned>(std::min<int64_t>(d.E, 65535)));
  half_kernel<H><<<grid, threads, 0, native(stream)>>>(d, basis, from, to);
  cuda_check(cudaGetLastError(), "project_off_basis");
}

}  // namespace

template <>
void project_off_basis(const Stream& stream, const ProjectOffDims& d, const float* basis, float* rest, float* products) {
  if (d.E * d.D * d.R * d.c == 0) return;
  run_half<Half::along>(stream, d, basis, rest, products);
  run_half<Half::back>(stream, d, basis, products, rest);
}

}  // namespace ermoe::cuda
