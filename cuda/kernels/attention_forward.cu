// Attention on matrix units, forward. Floor: 4 B H T² Dh FLOPs and one exponential a score; qkv read and y written once. The
// online softmax (Milakov and Gimelshein, arXiv 1805.02867) works on chunks of keys in registers: no score reaches memory.
// Contract: cuda/kernels/attention_paths.h. Read next: cuda/device/attention_mma.cuh.
#include "cuda/kernels/attention_paths.h"

#include "cuda/device/attention_mma.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

struct Args {
  AttentionDims d;
  const bf16* qkv;
  bf16* y;
  float* lse;
  int64_t blocks;  // of a head
};

/// The state of a warp's 16 rows: lane l has rows l / 4 and l / 4 + 8.
template <int Dh>
struct Rows {
  float out[Dh / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY};  // of the raw scores
  float sums[2] = {};                         // of this lane's columns alone
};

/// Scores become -infinity where a row does not see a key.
template <int Groups>
__device__ __forceinline__ void mask_scores(float (&s)[Groups][2][4], int query, int key, int end, bool causal) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int g = 0; g < Groups; ++g)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = query + lane / 4 + i / 2 * 8, column = key + 16 * g + 8 * half + lane % 4 * 2 + i % 2;
        if (column >= end || (causal && column > row)) s[g][half][i] = -INFINITY;
      }
}

/// Scores become e^((s - max) / √Dh); `factor` is log2(e) / √Dh. What was summed before shrinks to the new maxima.
template <int Dh, int Groups>
__device__ __forceinline__ void softmax_step(float (&s)[Groups][2][4], float factor, Rows<Dh>& rows) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float top = rows.largest[r];
#pragma unroll
    for (int g = 0; g < Groups; ++g)
#pragma unroll
      for (int half = 0; half < 2; ++half) top = fmaxf(top, fmaxf(s[g][half][2 * r], s[g][half][2 * r + 1]));
    top = fmaxf(top, __shfl_xor_sync(all_lanes, top, 1));
    top = fmaxf(top, __shfl_xor_sync(all_lanes, top, 2));
    const float shift = top * factor, shrink = exp2_of(rows.largest[r] * factor - shift);
    rows.largest[r] = top;
    float sum = rows.sums[r] * shrink;
#pragma unroll
    for (int g = 0; g < Groups; ++g)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) sum += s[g][half][i] = exp2_of(s[g][half][i] * factor - shift);
    rows.sums[r] = sum;
#pragma unroll
    for (int n = 0; n < Dh / 8; ++n) rows.out[n][2 * r] *= shrink, rows.out[n][2 * r + 1] *= shrink;
  }
}

/// One chunk of keys and values; with `Masked`, some row does not see all of them, and none sees those from `limit` on.
template <int Dh, bool Masked>
__device__ __forceinline__ void work_on(const LeftRows<Dh>& queries, uint32_t keys, uint32_t values, const LaneOffsets<Dh>& lane, int query,
                                        int key, int end, int limit, bool causal, float factor, Rows<Dh>& rows) {
  constexpr int groups = HeadTile<Dh>::chunk / 16;
  constexpr uint32_t step = 2 * 16 * HeadTile<Dh>::pitch;
  float s[groups][2][4];
#pragma unroll
  for (int g = 0; g < groups; ++g)
    if (!Masked || key + 16 * g < limit) row_products(queries, keys + g * step, lane, s[g]);
  if constexpr (Masked) mask_scores(s, query, key, min(end, limit), causal);
  softmax_step<Dh>(s, factor, rows);
#pragma unroll
  for (int g = 0; g < groups; ++g)
    if (!Masked || key + 16 * g < limit) add_weighted_rows<Dh>(Weights(s[g]), values + g * step, lane, rows.out);
}

template <int Dh>
__global__ void __launch_bounds__(HeadTile<Dh>::threads, 2) forward_kernel(Args a) {
  using Tile = HeadTile<Dh>;
  extern __shared__ __align__(16) unsigned char memory[];
  const AttentionDims& d = a.d;
  const WarpShare share(d, a.blocks);
  const int tokens = static_cast<int>(d.tokens), head_dim = static_cast<int>(d.head_dim), thread = static_cast<int>(threadIdx.x);
  const bool causal = d.mask == AttentionMask::causal, any = share.first < tokens;
  const int64_t stride = 3 * d.heads * d.head_dim;
  const bf16 *k = share.head_of(d, a.qkv, 1), *v = share.head_of(d, a.qkv, 2);
  bf16* const owned = reinterpret_cast<bf16*>(memory);
  bf16* const ring = owned + share.threads / warp_size * Tile::owned;
  // Queries of the block see no key from here on; a warp's, none from `limit` on.
  const int block_end = causal ? min(tokens, share.block_first + share.threads / warp_size * owned_rows) : tokens;
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
  const bf16* const q = share.head_of(d, a.qkv, 0) + share.block_first * stride;
  copy_rows<Dh>(owned, q, stride, share.threads / warp_size * owned_rows, tokens - share.block_first, head_dim, thread, share.threads);
#pragma unroll
  for (int c = 0; c < ring_stages - 1; ++c) fetch(c);

  const LaneOffsets<Dh> lane;
  const float factor = log2_e / sqrtf(static_cast<float>(head_dim));
  bf16* const mine = owned + share.warp * Tile::owned;
  LeftRows<Dh> queries;
  Rows<Dh> rows;
  for (int c = 0; c < chunks; ++c) {
    wait_copies<ring_stages - 2>();
    __syncthreads();
    fetch(c + ring_stages - 1);
    if (c == 0) queries.load(shared_address(mine), lane);
    const int key = c * Tile::chunk;
    if (!any || key >= limit) continue;
    const uint32_t keys = shared_address(ring + c % ring_stages * 2 * Tile::streamed), values = keys + 2 * Tile::streamed;
    if (key + Tile::chunk <= (causal ? min(tokens, share.first + 1) : tokens))
      work_on<Dh, false>(queries, keys, values, lane, share.first, key, tokens, limit, causal, factor, rows);
    else
      work_on<Dh, true>(queries, keys, values, lane, share.first, key, tokens, limit, causal, factor, rows);
  }
  wait_copies<0>();
  if (!any) return;
  float inverse[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = rows.sums[r];
    sum += __shfl_xor_sync(all_lanes, sum, 1);
    sum += __shfl_xor_sync(all_lanes, sum, 2);
    inverse[r] = 1 / sum;
    const int row = share.first + thread % warp_size / 4 + 8 * r;
    if (thread % 4 == 0 && row < tokens) a.lse[share.pair * d.tokens + row] = ln_2 * (rows.largest[r] * factor + log2f(sum));
  }
  const int64_t width = d.heads * d.head_dim;
  write_rows<Dh>(rows.out, inverse[0], inverse[1], mine, share.head_of(d, a.y) + share.first * width, width, tokens - share.first, head_dim,
                 Accumulate::overwrite);
}

}  // namespace

void attention_forward_mma(const Stream& stream, const AttentionDims& dims, const bf16* qkv, bf16* y, float* lse) {
  with_head_tile(dims.head_dim, [&]<int Dh>(std::integral_constant<int, Dh>) {
    using Tile = HeadTile<Dh>;
    const RowSplit split(dims.tokens, Tile::warps);
    const size_t bytes = sizeof(bf16) * (split.warps * Tile::owned + ring_stages * 2 * Tile::streamed);
    cuda_check(cudaFuncSetAttribute(forward_kernel<Dh>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
               "cudaFuncSetAttribute");
    const auto blocks = static_cast<unsigned>(dims.batch * dims.heads * split.blocks);
    forward_kernel<Dh><<<blocks, split.warps * warp_size, bytes, native(stream)>>>({dims, qkv, y, lse, split.blocks});
    cuda_check(cudaGetLastError(), "attention_forward");
  });
}

}  // namespace ermoe::cuda
