// The way out of Hopper's products of rows: a warp's sums of 16 rows start from the bias, and leave as bf16 through a piece of
// shared memory, so that whole lines of 128 bytes are written. GELU and its derivative are applied on the way, which saves a
// pass over the widest tensors of the layer; with the derivative GELU's output is made again, which saves keeping it.
// Read next: grouped_linear_wgmma.cu.
#pragma once

#include "cuda/device/gelu.cuh"
#include "cuda/device/pack.cuh"
#include "cuda/kernels/grouped_linear_hopper.cuh"

namespace ermoe::cuda::hopper {

inline constexpr int stripe_bytes = 16 * 128;                            // 16 rows of 64 columns: a warp's piece of C on its way out
inline constexpr int staging_bytes = consumer_warps * 2 * stripe_bytes;  // two a warp, used in turn

/// Where a warp's 16 rows of a tile go, and how much of them there is.
struct Target {
  bf16* c;
  bf16* second;
  const bf16* bias;  // of the tile's first column, or null
  int64_t pitch;
  int rows, columns;
  bool add;
};

/// A lane's four chunks of 8 columns of a piece of 64: a warp takes whole lines of 128 bytes.
template <typename Fn>
__device__ __forceinline__ void for_each_chunk(const Target& t, int piece, Fn&& fn) {
  const int lane = threadIdx.x % 32, chunk = lane % 8, column = piece * 64 + chunk * 8;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = i * 4 + lane / 8;
    if (row < t.rows && column < t.columns) fn(i, row * t.pitch + column, row * 128 + ((chunk ^ (row & 7)) << 4));
  }
}

using Chunks = uint4[4];

/// What C holds before this tile is written: with gelu_slope, the pre-activation.
__device__ __forceinline__ void fetch_pre(const Target& t, int piece, Chunks& to) {
  for_each_chunk(t, piece, [&](int i, int64_t at, int) { to[i] = *reinterpret_cast<const uint4*>(t.c + at); });
}

/// Sums start from the bias: its loads all go out at once here, where on the way out each would be waited for.
template <int Sums>
__device__ __forceinline__ void start_from_bias(float (&sum)[Sums], const Target& t) {
#pragma unroll
  for (int j = 0; j < Sums / 4; ++j) {
    const int column = 8 * j + static_cast<int>(threadIdx.x) % 4 * 2;
    const auto bias = t.bias != nullptr && column < t.columns ? load<2>(t.bias + column) : Pack<bf16, 2>{};
    sum[4 * j] = sum[4 * j + 2] = widen(bias.v[0]);
    sum[4 * j + 1] = sum[4 * j + 3] = widen(bias.v[1]);
  }
  settle(sum);
  multiply_fence();
}

/// The sums of 64 columns as bf16 into shared memory; chunks permuted as in the swizzle of TMA.
template <int Sums>
__device__ __forceinline__ void stage_piece(const float (&sum)[Sums], int piece, uint32_t stripe) {
  const int lane = threadIdx.x % 32, row = lane % 16;
#pragma unroll
  for (int j = 0; j < 8; j += 2) {
    uint32_t m[4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int block = piece * 8 + j + i;
      m[2 * i] = pack_pair(sum[4 * block], sum[4 * block + 1]);
      m[2 * i + 1] = pack_pair(sum[4 * block + 2], sum[4 * block + 3]);
    }
    const int chunk = j + lane / 16;
    store_matrices(stripe + row * 128 + ((chunk ^ (row & 7)) << 4), m[0], m[1], m[2], m[3]);
  }
}

/// What happens to a chunk of eight sums, and what the second tensor receives. `pre`: with gelu_slope, the pre-activation.
template <Finish F>
__device__ __forceinline__ void finish_chunk(uint4& chunk, uint4& second, const uint4& pre) {
  if constexpr (F == Finish::gelu) second = change_each(chunk, [](int, float value) { return fast_gelu(value); });
  if constexpr (F == Finish::gelu_slope) {
    auto& values = reinterpret_cast<Pack<bf16, 8>&>(second);
    const auto& at_pre = reinterpret_cast<const Pack<bf16, 8>&>(pre);
    chunk = change_each(chunk, [&](int v, float value) {
      const GeluAndSlope gelu = fast_gelu_and_slope(widen(at_pre.v[v]));
      values.v[v] = narrow<bf16>(gelu.value);
      return value * gelu.slope;
    });
  }
}

/// With gelu_slope, hands over the pre-activation of a piece and fetches the next one's.
template <Finish F>
__device__ __forceinline__ void take_pre(const Target& t, int piece, int pieces, Chunks& ahead, Chunks& pre) {
  if constexpr (F == Finish::gelu_slope) {
#pragma unroll
    for (int i = 0; i < 4; ++i) pre[i] = ahead[i];
    if (piece + 1 < pieces) fetch_pre(t, piece + 1, ahead);
  }
}

/// A warp writes its rows. `ahead`: with gelu_slope, the pre-activation's chunks of the first piece.
template <Finish F, int Sums>
__device__ __forceinline__ void write_rows(const float (&sum)[Sums], uint32_t staging, const Target& t, Chunks& ahead) {
#pragma unroll
  for (int piece = 0; piece < Sums / 32; ++piece) {
    const uint32_t stripe = staging + piece % 2 * stripe_bytes;  // its readers of two pieces ago have passed the last barrier
    Chunks pre;
    take_pre<F>(t, piece, Sums / 32, ahead, pre);
    stage_piece(sum, piece, stripe);
    __syncwarp();
    for_each_chunk(t, piece, [&](int i, int64_t at, int place) {
      uint4 chunk = load_shared(stripe + place), second;
      finish_chunk<F>(chunk, second, pre[i]);
      if (t.add) {
        const auto old = load<8>(t.c + at);
        chunk = change_each(chunk, [&](int v, float value) { return value + widen(old.v[v]); });
      }
      *reinterpret_cast<uint4*>(t.c + at) = chunk;
      if constexpr (F != Finish::plain) *reinterpret_cast<uint4*>(t.second + at) = second;
    });
  }
  __syncwarp();  // an odd number of pieces: the next tile begins in the stripe that was read last
}

/// Where the copy engine writes: boxes of 16 rows from (column, row) on.
struct Boxes {
  const CUtensorMap *c, *second;
  int column, row;
};

/// A warp's whole 16 rows as boxes that the copy engine writes, while the warp goes on. Wants a stripe a piece and tensor.
template <Finish F, int Sums>
__device__ __forceinline__ void post_rows(const float (&sum)[Sums], uint32_t staging, const Target& t, const Boxes& boxes, Chunks& ahead) {
  constexpr int pieces = Sums / 32;
  const bool posts = threadIdx.x % 32 == 0;
  if (posts) wait_posts_read();  // the tile before has left
  __syncwarp();
#pragma unroll
  for (int piece = 0; piece < pieces; ++piece) {
    const uint32_t stripe = staging + piece * stripe_bytes, second_stripe = stripe + pieces * stripe_bytes;
    Chunks pre;
    take_pre<F>(t, piece, pieces, ahead, pre);
    stage_piece(sum, piece, stripe);
    if constexpr (F != Finish::plain) {
      __syncwarp();
      for_each_chunk(t, piece, [&](int i, int64_t, int place) {
        uint4 chunk = load_shared(stripe + place), second;
        finish_chunk<F>(chunk, second, pre[i]);
        if constexpr (F == Finish::gelu_slope) store_shared(stripe + place, chunk);
        store_shared(second_stripe + place, second);
      });
    }
    fence_for_async_proxy();
    __syncwarp();
    if (posts) {
      post_box(boxes.c, stripe, boxes.column + 64 * piece, boxes.row);
      if constexpr (F != Finish::plain) post_box(boxes.second, second_stripe, boxes.column + 64 * piece, boxes.row);
      commit_posts();
    }
  }
}

/// Zeros in rows that no expert fills.
template <Finish F, int N>
__device__ __forceinline__ void clear_rows(const Target& t) {
  for (int piece = 0; piece < N / 64; ++piece)
    for_each_chunk(t, piece, [&](int, int64_t at, int) {
      *reinterpret_cast<uint4*>(t.c + at) = make_uint4(0, 0, 0, 0);
      if constexpr (F != Finish::plain) *reinterpret_cast<uint4*>(t.second + at) = make_uint4(0, 0, 0, 0);
    });
}

}  // namespace ermoe::cuda::hopper
