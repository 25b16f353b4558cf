// Tiles of scores in plain float32 arithmetic, for every head width and alignment: 64 by 64 products by 256 threads, four by
// four a thread, their operands passing through shared memory. What attention falls back on, and its float32 path.
#pragma once

#include "core/accumulate.h"
#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"

namespace ermoe::cuda {

inline constexpr int tile_size = 64, tile_threads = 256;
inline constexpr int tile_depth = 32;             // columns of a product's operands at a time
inline constexpr int tile_pitch = tile_size + 4;  // keeps rows 16-byte aligned and spreads columns over the banks

/// Rows of a matrix in global memory: `count` of them from `data` on (those beyond are zeros), `stride` elements apart.
template <typename T>
struct TileRows {
  const T* data;
  int64_t stride;
  int count;
};

/// Operands of one product, [k][row] and [k][column].
struct TileOperands {
  alignas(16) float left[tile_size][tile_pitch], right[tile_size][tile_pitch];
};

/// What a thread holds of a tile: rows 4 ty … 4 ty + 3, columns 4 tx … 4 tx + 3.
struct TilePart {
  float v[4][4];
};
__device__ __forceinline__ int tile_row() { return static_cast<int>(threadIdx.x) / 16 * 4; }
__device__ __forceinline__ int tile_column() { return static_cast<int>(threadIdx.x) % 16 * 4; }

/// Across the 16 threads that share a row.
__device__ __forceinline__ float tile_row_sum(float value) {
#pragma unroll
  for (int distance = 8; distance > 0; distance /= 2) value += __shfl_xor_sync(all_lanes, value, distance);
  return value;
}
__device__ __forceinline__ float tile_row_max(float value) {
#pragma unroll
  for (int distance = 8; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(all_lanes, value, distance));
  return value;
}

/// out += leftᵀ right over the first `depth` rows of the operands.
__device__ __forceinline__ void multiply_tile(const TileOperands& in, int depth, TilePart& out) {
#pragma unroll 8
  for (int k = 0; k < depth; ++k) {
    const auto a = load<4>(&in.left[k][tile_row()]), b = load<4>(&in.right[k][tile_column()]);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) out.v[i][j] += a.v[i] * b.v[j];
  }
}

/// `tile_depth` columns from `first` on, transposed: to[k][row]. Zeros beyond the rows and beyond `width`.
template <typename T>
__device__ __forceinline__ void load_transposed(float (&to)[tile_size][tile_pitch], const TileRows<T>& rows, int64_t first, int64_t width) {
  const int k = static_cast<int>(threadIdx.x) % tile_depth;
#pragma unroll
  for (int row = static_cast<int>(threadIdx.x) / tile_depth; row < tile_size; row += tile_threads / tile_depth)
    to[k][row] = row < rows.count && first + k < width ? widen(rows.data[row * rows.stride + first + k]) : 0.0f;
}

/// `tile_size` columns from `first` on: to[row][column]. Zeros as above.
template <typename T>
__device__ __forceinline__ void load_tile(float (&to)[tile_size][tile_pitch], const TileRows<T>& rows, int64_t first, int64_t width) {
  const int column = static_cast<int>(threadIdx.x) % tile_size;
#pragma unroll
  for (int row = static_cast<int>(threadIdx.x) / tile_size; row < tile_size; row += tile_threads / tile_size)
    to[row][column] = row < rows.count && first + column < width ? widen(rows.data[row * rows.stride + first + column]) : 0.0f;
}

/// The products of the rows of a and b, `width` long each. All threads call it; it may overwrite the operands at once.
template <typename T>
__device__ __forceinline__ TilePart row_products(TileOperands& operands, const TileRows<T>& a, const TileRows<T>& b, int64_t width) {
  TilePart out{};
  for (int64_t first = 0; first < width; first += tile_depth) {
    __syncthreads();
    load_transposed(operands.left, a, first, width);
    load_transposed(operands.right, b, first, width);
    __syncthreads();
    multiply_tile(operands, tile_depth, out);
  }
  return out;
}

/// out += part times rows: Σ_k part[row][k] rows[k], for `tile_size` columns from `first` on.
template <typename T>
__device__ __forceinline__ void apply_tile(TileOperands& operands, const TilePart& part, const TileRows<T>& rows, int64_t first,
                                           int64_t width, TilePart& out) {
  __syncthreads();
#pragma unroll
  for (int j = 0; j < 4; ++j)
    store(&operands.left[tile_column() + j][tile_row()], Pack<float, 4>{part.v[0][j], part.v[1][j], part.v[2][j], part.v[3][j]});
  load_tile(operands.right, rows, first, width);
  __syncthreads();
  multiply_tile(operands, tile_size, out);
}

/// (+)= `scale` times a tile, into columns `first` … of `count` rows.
template <typename T>
__device__ __forceinline__ void write_tile(const TilePart& part, float scale, T* to, int64_t stride, int count, int64_t first,
                                           int64_t width, Accumulate mode) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (tile_row() + i >= count) break;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t column = first + tile_column() + j;
      if (column >= width) break;
      T& at = to[(tile_row() + i) * stride + column];
      const float value = part.v[i][j] * scale;
      at = narrow<T>(mode == Accumulate::add ? widen(at) + value : value);
    }
  }
}

}  // namespace ermoe::cuda
