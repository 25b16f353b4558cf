// Attention on matrix units, backward, in two passes, for heads of any length: a warp that owns 16 queries makes their dq, a warp
// that owns 16 keys their dk and dv. Each pass computes the scores again, so every gradient has one writer and nothing is added
// across warps: 14 B H T² Dh FLOPs in all instead of the least 10, for no atomics and no second reading of sums. The first pass also
// makes delta = Σ dy·y, which both need. Contract: cuda/kernels/attention_paths.h. Read next: attention_backward_short.cu.
#include "cuda/kernels/attention_paths.h"

#include "cuda/device/attention_mma.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

struct Args : AttentionGradients {
  float* delta;
  int64_t blocks;  // of a head
};

/// Σ dy·y of a warp's 16 rows, into `delta`; every lane receives those of its own two. Two lanes share a row.
template <int Dh>
__device__ __forceinline__ void row_deltas(const bf16* dy, const bf16* y, int64_t stride, int count, int head_dim, float* delta,
                                           float (&own)[2]) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, row = lane / 2;
  float sum = 0;
#pragma unroll
  for (int k = 0; k < Dh / 16; ++k) {
    const int column = 16 * k + lane % 2 * 8;
    if (row >= count || column >= head_dim) continue;
    const auto a = load<8>(dy + row * HeadTile<Dh>::pitch + column), b = load<8>(y + row * stride + column);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += widen(a.v[i]) * widen(b.v[i]);
  }
  sum += __shfl_xor_sync(all_lanes, sum, 1);
  if (lane % 2 == 0 && row < count) delta[row] = sum;
  own[0] = __shfl_sync(all_lanes, sum, lane / 4 * 2);
  own[1] = __shfl_sync(all_lanes, sum, lane / 4 * 2 + 16);
}

/// Sixteen keys: dq += dS k. lse in powers of two.
template <int Dh, bool Masked>
__device__ __forceinline__ void queries_meet(const LeftRows<Dh>& queries, const LeftRows<Dh>& dys, uint32_t keys, uint32_t values,
                                             const LaneOffsets<Dh>& lane, int query, int key, int end, bool causal, float factor,
                                             const float (&lse)[2], const float (&delta)[2], float (&dq)[Dh / 8][4]) {
  const int id = static_cast<int>(threadIdx.x) % warp_size;
  float s[2][4], ds[2][4];
  row_products(queries, keys, lane, s);
  row_products(dys, values, lane, ds);
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float p = exp2_of(s[half][i] * factor - lse[i / 2]);
      ds[half][i] = p * (ds[half][i] - delta[i / 2]);
      if constexpr (Masked) {
        const int row = query + id / 4 + i / 2 * 8, column = key + 8 * half + id % 4 * 2 + i % 2;
        if (column >= end || (causal && column > row)) ds[half][i] = 0;
      }
    }
  add_weighted_rows<Dh>(Weights(ds), keys, lane, dq);
}

template <int Dh>
__global__ void __launch_bounds__(HeadTile<Dh>::threads, 2) backward_q_kernel(Args a) {
  using Tile = HeadTile<Dh>;
  extern __shared__ __align__(16) unsigned char memory[];
  const AttentionDims& d = a.d;
  const WarpShare share(d, a.blocks);
  const int tokens = static_cast<int>(d.tokens), head_dim = static_cast<int>(d.head_dim), thread = static_cast<int>(threadIdx.x);
  const int block_rows = share.threads / warp_size * owned_rows;
  const bool causal = d.mask == AttentionMask::causal, any = share.first < tokens;
  const int64_t width = d.heads * d.head_dim, stride = 3 * width;
  const bf16 *k = share.head_of(d, a.qkv, 1), *v = share.head_of(d, a.qkv, 2);
  bf16 *const owned_q = reinterpret_cast<bf16*>(memory), *const owned_dy = owned_q + block_rows * Tile::pitch;
  bf16* const ring = owned_dy + block_rows * Tile::pitch;
  const int block_end = causal ? min(tokens, share.block_first + block_rows) : tokens;
  const int limit = causal ? min(tokens, share.first + owned_rows) : tokens, chunks = (block_end + Tile::chunk - 1) / Tile::chunk;
  const auto fetch = [&](int chunk) {
    if (chunk < chunks) {
      const int first = chunk * Tile::chunk, count = min(Tile::chunk, tokens - first), rows = (count + 15) / 16 * 16;
      bf16* const to = ring + chunk % ring_stages * 2 * Tile::streamed;
      copy_rows<Dh>(to, k + first * stride, stride, rows, count, head_dim, thread, share.threads);
      copy_rows<Dh>(to + Tile::streamed, v + first * stride, stride, rows, count, head_dim, thread, share.threads);
    }
    commit_copies();
  };
  copy_rows<Dh>(owned_q, share.head_of(d, a.qkv, 0) + share.block_first * stride, stride, block_rows, tokens - share.block_first, head_dim,
                thread, share.threads);
  copy_rows<Dh>(owned_dy, share.head_of(d, a.dy) + share.block_first * width, width, block_rows, tokens - share.block_first, head_dim,
                thread, share.threads);
#pragma unroll
  for (int c = 0; c < ring_stages - 1; ++c) fetch(c);

  const LaneOffsets<Dh> lane;
  const float scale = 1 / sqrtf(static_cast<float>(head_dim)), factor = log2_e * scale;
  bf16 *const my_q = owned_q + share.warp * Tile::owned, *const my_dy = owned_dy + share.warp * Tile::owned;
  LeftRows<Dh> queries, dys;
  float lse[2], delta[2], dq[Dh / 8][4] = {};
  for (int c = 0; c < chunks; ++c) {
    wait_copies<ring_stages - 2>();
    __syncthreads();
    fetch(c + ring_stages - 1);
    if (!any) continue;
    if (c == 0) {
      const int64_t at = share.pair * d.tokens + share.first;
      queries.load(shared_address(my_q), lane), dys.load(shared_address(my_dy), lane);
      row_deltas<Dh>(my_dy, share.head_of(d, a.y) + share.first * width, width, tokens - share.first, head_dim, a.delta + at, delta);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = thread % warp_size / 4 + 8 * r;
        lse[r] = share.first + row < tokens ? a.lse[at + row] * log2_e : 0.0f;
      }
    }
    const uint32_t keys = shared_address(ring + c % ring_stages * 2 * Tile::streamed), values = keys + 2 * Tile::streamed;
    const int unmasked = causal ? min(tokens, share.first + 1) : tokens;
#pragma unroll 2
    for (int row = 0; row < Tile::chunk; row += 16) {
      const int key = c * Tile::chunk + row;
      if (key >= limit) break;
      const uint32_t skip = 2 * Tile::pitch * row;
      if (key + 16 <= unmasked)
        queries_meet<Dh, false>(queries, dys, keys + skip, values + skip, lane, share.first, key, tokens, causal, factor, lse, delta, dq);
      else
        queries_meet<Dh, true>(queries, dys, keys + skip, values + skip, lane, share.first, key, tokens, causal, factor, lse, delta, dq);
    }
  }
  wait_copies<0>();
  if (any)
    write_rows<Dh>(dq, scale, scale, my_q, share.head_of(d, a.dqkv, 0) + share.first * stride, stride, tokens - share.first, head_dim,
                   a.mode);
}

/// Sixteen queries: dv += Pᵀ dy, dk += dSᵀ q. Rows of a product are keys here, columns queries. A query beyond the last has
/// zeros for q, dy, lse and delta, and adds nothing.
template <int Dh, bool Masked>
__device__ __forceinline__ void keys_meet(const LeftRows<Dh>& keys, const LeftRows<Dh>& values, uint32_t queries, uint32_t dys,
                                          const float* lse, const float* delta, const LaneOffsets<Dh>& lane, int key, int query,
                                          float factor, float (&dk)[Dh / 8][4], float (&dv)[Dh / 8][4]) {
  const int id = static_cast<int>(threadIdx.x) % warp_size;
  float p[2][4], ds[2][4];
  row_products(keys, queries, lane, p);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto shift = load<2>(lse + 8 * half + id % 4 * 2);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      p[half][i] = exp2_of(p[half][i] * factor - shift.v[i % 2] * log2_e);
      if constexpr (Masked)
        if (query + 8 * half + id % 4 * 2 + i % 2 < key + id / 4 + i / 2 * 8) p[half][i] = 0;
    }
  }
  add_weighted_rows<Dh>(Weights(p), dys, lane, dv);
  row_products(values, dys, lane, ds);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto row_delta = load<2>(delta + 8 * half + id % 4 * 2);
#pragma unroll
    for (int i = 0; i < 4; ++i) ds[half][i] = p[half][i] * (ds[half][i] - row_delta.v[i % 2]);
  }
  add_weighted_rows<Dh>(Weights(ds), queries, lane, dk);
}

template <int Dh>
__global__ void __launch_bounds__(HeadTile<Dh>::threads, Dh <= 64 ? 2 : 1) backward_kv_kernel(Args a) {
  using Tile = HeadTile<Dh>;
  extern __shared__ __align__(16) unsigned char memory[];
  const AttentionDims& d = a.d;
  const WarpShare share(d, a.blocks);
  const int tokens = static_cast<int>(d.tokens), head_dim = static_cast<int>(d.head_dim), thread = static_cast<int>(threadIdx.x);
  const int block_rows = share.threads / warp_size * owned_rows;
  const bool causal = d.mask == AttentionMask::causal, any = share.first < tokens;
  const int64_t width = d.heads * d.head_dim, stride = 3 * width;
  const bf16 *q = share.head_of(d, a.qkv, 0), *dy = share.head_of(d, a.dy);
  bf16 *const owned_k = reinterpret_cast<bf16*>(memory), *const owned_v = owned_k + block_rows * Tile::pitch;
  bf16* const ring = owned_v + block_rows * Tile::pitch;
  float* const statistics = reinterpret_cast<float*>(ring + ring_stages * 2 * Tile::streamed);  // (stages, 2, chunk): lse, delta
  const int chunks = (tokens + Tile::chunk - 1) / Tile::chunk, begin = causal ? share.block_first / Tile::chunk : 0;
  const auto fetch = [&](int chunk) {
    if (chunk < chunks) {
      const int first = chunk * Tile::chunk, count = min(Tile::chunk, tokens - first), rows = (count + 15) / 16 * 16;
      bf16* const to = ring + chunk % ring_stages * 2 * Tile::streamed;
      copy_rows<Dh>(to, q + first * stride, stride, rows, count, head_dim, thread, share.threads);
      copy_rows<Dh>(to + Tile::streamed, dy + first * width, width, rows, count, head_dim, thread, share.threads);
      const int64_t at = share.pair * d.tokens + first;
      float* const lse = statistics + chunk % ring_stages * 2 * Tile::chunk;
      for (int i = thread; i < rows; i += share.threads) {
        copy_async_4(lse + i, a.lse + (i < count ? at + i : 0), i < count);
        copy_async_4(lse + Tile::chunk + i, a.delta + (i < count ? at + i : 0), i < count);
      }
    }
    commit_copies();
  };
  const bf16* const k = share.head_of(d, a.qkv, 1) + share.block_first * stride;
  copy_rows<Dh>(owned_k, k, stride, block_rows, tokens - share.block_first, head_dim, thread, share.threads);
  copy_rows<Dh>(owned_v, k + width, stride, block_rows, tokens - share.block_first, head_dim, thread, share.threads);
#pragma unroll
  for (int c = 0; c < ring_stages - 1; ++c) fetch(begin + c);

  const LaneOffsets<Dh> lane;
  const float scale = 1 / sqrtf(static_cast<float>(head_dim)), factor = log2_e * scale;
  bf16 *const my_k = owned_k + share.warp * Tile::owned, *const my_v = owned_v + share.warp * Tile::owned;
  LeftRows<Dh> keys, values;
  float dk[Dh / 8][4] = {}, dv[Dh / 8][4] = {};
  for (int c = begin; c < chunks; ++c) {
    wait_copies<ring_stages - 2>();
    __syncthreads();
    fetch(c + ring_stages - 1);
    if (!any) continue;
    if (c == begin) keys.load(shared_address(my_k), lane), values.load(shared_address(my_v), lane);
    const uint32_t queries = shared_address(ring + c % ring_stages * 2 * Tile::streamed), dys = queries + 2 * Tile::streamed;
    const float *const lse = statistics + c % ring_stages * 2 * Tile::chunk, *const delta = lse + Tile::chunk;
#pragma unroll 2
    for (int row = 0; row < Tile::chunk; row += 16) {
      const int query = c * Tile::chunk + row;
      if (query >= tokens) break;
      if (causal && query + 15 < share.first) continue;
      const uint32_t skip = 2 * Tile::pitch * row;
      if (!causal || query >= share.first + 15)
        keys_meet<Dh, false>(keys, values, queries + skip, dys + skip, lse + row, delta + row, lane, share.first, query, factor, dk, dv);
      else
        keys_meet<Dh, true>(keys, values, queries + skip, dys + skip, lse + row, delta + row, lane, share.first, query, factor, dk, dv);
    }
  }
  wait_copies<0>();
  if (!any) return;
  bf16* const to = share.head_of(d, a.dqkv, 1) + share.first * stride;
  write_rows<Dh>(dk, scale, scale, my_k, to, stride, tokens - share.first, head_dim, a.mode);
  write_rows<Dh>(dv, 1, 1, my_v, to + width, stride, tokens - share.first, head_dim, a.mode);
}

}  // namespace

void attention_backward_mma(const Stream& stream, const AttentionGradients& work, float* delta) {
  const AttentionDims& dims = work.d;
  with_head_tile(dims.head_dim, [&]<int Dh>(std::integral_constant<int, Dh>) {
    using Tile = HeadTile<Dh>;
    const RowSplit split(dims.tokens, Tile::warps);
    const size_t rows = sizeof(bf16) * (2 * split.warps * Tile::owned + ring_stages * 2 * Tile::streamed);
    const size_t with_statistics = rows + sizeof(float) * ring_stages * 2 * Tile::chunk;
    const Args args{work, delta, split.blocks};
    const auto launch = [&](auto* kernel, size_t bytes) {
      cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
                 "cudaFuncSetAttribute");
      kernel<<<static_cast<unsigned>(dims.batch * dims.heads * split.blocks), split.warps * warp_size, bytes, native(stream)>>>(args);
      cuda_check(cudaGetLastError(), "attention_backward");
    };
    launch(backward_q_kernel<Dh>, rows);
    launch(backward_kv_kernel<Dh>, with_statistics);
  });
}

}  // namespace ermoe::cuda
