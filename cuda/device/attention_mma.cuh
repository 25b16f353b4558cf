// What the attention kernels on matrix units share. A warp owns 16 rows of one head (queries, or keys on the way to dk and
// dv): their products stay in its registers. All warps of a block walk over the head's other rows together, in chunks that
// pass through a ring of shared memory while the chunk before is worked on. Read next: cuda/kernels/attention_forward.cu.
#pragma once

#include "cuda/device/mma.cuh"
#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"
#include "ops/kernels/attention.h"

#include <algorithm>

namespace ermoe::cuda {

inline constexpr int owned_rows = 16;  // of a warp: the height of a matrix instruction
inline constexpr int ring_stages = 3;
inline constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.6931471805599453f;

/// Sizes for heads of up to `Dh` columns, a multiple of 32.
template <int Dh>
struct HeadTile {
  static constexpr int pitch = Dh + 8;              // of a row in shared memory: eight rows then lie in different banks
  static constexpr int steps = Dh / 16;             // of the sum in a product of rows
  static constexpr int chunk = Dh <= 64 ? 64 : 32;  // rows that a block takes at a time
  static constexpr int warps = Dh <= 64 ? 7 : 4;    // of a block at most
  static constexpr int threads = warps * warp_size;
  static constexpr int owned = owned_rows * pitch, streamed = chunk * pitch;  // elements of shared memory
};

/// How the rows of a head fall into blocks of warps: as few warps without rows as possible.
struct RowSplit {
  int64_t blocks;  // of a head
  int warps;       // of a block

  RowSplit(int64_t rows, int most) {
    const int64_t groups = (rows + owned_rows - 1) / owned_rows;
    blocks = (groups + most - 1) / most;
    warps = static_cast<int>((groups + blocks - 1) / blocks);
  }
};

/// Sixteen bytes' worth of a head's columns at a time, by all threads of a block: `rows` rows to shared memory, zeros
/// from row `count` and column `head_dim` on.
template <int Dh>
__device__ __forceinline__ void copy_rows(bf16* to, const bf16* from, int64_t stride, int rows, int count, int head_dim, int thread,
                                          int threads) {
  constexpr int pieces = Dh / 8;
  for (int i = thread; i < rows * pieces; i += threads) {
    const int row = i / pieces, column = i % pieces * 8;
    const bool valid = row < count && column < head_dim;
    copy_async_16(shared_address(to + row * HeadTile<Dh>::pitch + column), valid ? from + row * stride + column : from, valid);
  }
}
/// Four bytes; zero where `valid` is false.
__device__ __forceinline__ void copy_async_4(float* to, const float* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 4 : 0) : "memory");
}

/// 2^x, zero for -infinity.
__device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// Two neighbouring bf16, the first in the lower half.
__device__ __forceinline__ uint32_t pack_two(float first, float second) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&both);
}

/// Addresses of a lane for the three ways of reading 16 by 16 elements of rows in shared memory.
template <int Dh>
struct LaneOffsets {
  uint32_t left, right, right_transposed;  // bytes

  __device__ LaneOffsets() {
    const int lane = static_cast<int>(threadIdx.x) % warp_size, pitch = HeadTile<Dh>::pitch;
    left = 2 * ((lane & 15) * pitch + (lane >> 4) * 8);
    right = 2 * (((lane & 7) + (lane >> 4) * 8) * pitch + ((lane >> 3) & 1) * 8);
    right_transposed = 2 * (((lane & 7) + ((lane >> 3) & 1) * 8) * pitch + (lane >> 4) * 8);
  }
};

/// A product's left operand: a warp's 16 rows.
template <int Dh>
struct LeftRows {
  uint32_t v[Dh / 16][4];

  __device__ __forceinline__ void load(uint32_t rows, const LaneOffsets<Dh>& lane) {
#pragma unroll
    for (int k = 0; k < Dh / 16; ++k) load_matrices(v[k], rows + lane.left + 32 * k);
  }
};

/// c (16, 16) = left (16, Dh) rowsᵀ: products with the 16 rows at `rows`, in two halves of 8 columns.
template <int Dh>
__device__ __forceinline__ void row_products(const LeftRows<Dh>& left, uint32_t rows, const LaneOffsets<Dh>& lane, float (&c)[2][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int i = 0; i < 4; ++i) c[half][i] = 0;
#pragma unroll
  for (int k = 0; k < Dh / 16; ++k) {
    uint32_t b[4];
    load_matrices(b, rows + lane.right + 32 * k);
    multiply_16x8x16(c[0], left.v[k], b[0], b[1]);
    multiply_16x8x16(c[1], left.v[k], b[2], b[3]);
  }
}

/// What comes out of `row_products`, as the left operand of the next product.
struct Weights {
  uint32_t v[4];

  Weights() = default;
  __device__ __forceinline__ explicit Weights(const float (&p)[2][4])
      : v{pack_two(p[0][0], p[0][1]), pack_two(p[0][2], p[0][3]), pack_two(p[1][0], p[1][1]), pack_two(p[1][2], p[1][3])} {}
};

/// out (16, Dh) += weights (16, 16) rows: the 16 rows at `rows`, weighted.
template <int Dh>
__device__ __forceinline__ void add_weighted_rows(const Weights& weights, uint32_t rows, const LaneOffsets<Dh>& lane,
                                                  float (&out)[Dh / 8][4]) {
#pragma unroll
  for (int n = 0; n < Dh / 16; ++n) {
    uint32_t b[4];
    load_matrices_transposed(b, rows + lane.right_transposed + 32 * n);
    multiply_16x8x16(out[2 * n], weights.v, b[0], b[1]);
    multiply_16x8x16(out[2 * n + 1], weights.v, b[2], b[3]);
  }
}

/// Writes a warp's 16 rows (+)= out, times `scale_low` (rows 0 … 7) or `scale_high`, by way of its own shared memory, so that
/// 16 bytes leave at a time.
template <int Dh>
__device__ __forceinline__ void write_rows(const float (&out)[Dh / 8][4], float scale_low, float scale_high, bf16* shared, bf16* to,
                                           int64_t stride, int count, int head_dim, Accumulate mode) {
  constexpr int pitch = HeadTile<Dh>::pitch, pieces = Dh / 8;
  const int lane = static_cast<int>(threadIdx.x) % warp_size, row = lane / 4, column = lane % 4 * 2;
  __syncwarp();
#pragma unroll
  for (int n = 0; n < Dh / 8; ++n) {
    *reinterpret_cast<uint32_t*>(shared + row * pitch + 8 * n + column) = pack_two(out[n][0] * scale_low, out[n][1] * scale_low);
    *reinterpret_cast<uint32_t*>(shared + (row + 8) * pitch + 8 * n + column) = pack_two(out[n][2] * scale_high, out[n][3] * scale_high);
  }
  __syncwarp();
  for (int i = lane; i < owned_rows * pieces; i += warp_size) {
    const int r = i / pieces, c = i % pieces * 8;
    if (r >= count || c >= head_dim) continue;
    auto values = load<8>(shared + r * pitch + c);
    if (mode == Accumulate::add) {
      const auto old = load<8>(to + r * stride + c);
#pragma unroll
      for (int k = 0; k < 8; ++k) values.v[k] = narrow<bf16>(widen(old.v[k]) + widen(values.v[k]));
    }
    store(to + r * stride + c, values);
  }
}

/// A warp's place: one head of one image, and the 16 rows that it owns, none where `first` is beyond the last.
struct WarpShare {
  int64_t batch, head, pair;
  int block_first, first, warp, threads;

  __device__ WarpShare(const AttentionDims& d, int64_t blocks) {
    threads = static_cast<int>(blockDim.x);
    warp = static_cast<int>(threadIdx.x) / warp_size;
    pair = blockIdx.x / blocks;
    batch = pair / d.heads;
    head = pair - batch * d.heads;
    block_first = static_cast<int>(blockIdx.x - pair * blocks) * (threads / warp_size) * owned_rows;
    first = block_first + warp * owned_rows;
  }
  /// First row of q (`part` 0), k (1) or v (2) of this head.
  template <typename T>
  __device__ T* head_of(const AttentionDims& d, T* qkv, int part) const {
    const int64_t width = d.heads * d.head_dim;
    return qkv + batch * d.tokens * 3 * width + part * width + head * d.head_dim;
  }
  /// First row of y or dy of this head.
  template <typename T>
  __device__ T* head_of(const AttentionDims& d, T* y) const {
    return y + batch * d.tokens * d.heads * d.head_dim + head * d.head_dim;
  }
};

/// Calls fn with the narrowest tile that holds a head.
template <typename Fn>
void with_head_tile(int64_t head_dim, Fn&& fn) {
  if (head_dim <= 32) return fn(std::integral_constant<int, 32>{});
  if (head_dim <= 64) return fn(std::integral_constant<int, 64>{});
  if (head_dim <= 96) return fn(std::integral_constant<int, 96>{});
  fn(std::integral_constant<int, 128>{});
}

}  // namespace ermoe::cuda
