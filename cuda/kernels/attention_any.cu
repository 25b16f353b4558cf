// Attention in float32 arithmetic, for every head width and type: 64 queries a block against tiles of 64 keys with an online
// softmax; backward in two passes (one over key tiles for dq, one over query tiles for dk and dv), so that every gradient has
// one writer. Where a head is wider than 64, a block makes 64 columns of the result and the scores are computed again.
// Contract: cuda/kernels/attention_paths.h. Read next: cuda/device/score_tile.cuh.
#include "cuda/kernels/attention_paths.h"

#include "cuda/device/row_group.cuh"
#include "cuda/device/score_tile.cuh"

namespace ermoe::cuda {
namespace {

/// A block's share: one head of one image, `tile_size` rows from `first` on, and one block of columns.
struct Share {
  int64_t batch, head, pair, first, column;

  __device__ explicit Share(const AttentionDims& d) {
    const int64_t columns = (d.head_dim + tile_size - 1) / tile_size, tiles = (d.tokens + tile_size - 1) / tile_size;
    column = blockIdx.x % columns * tile_size;
    first = blockIdx.x / columns % tiles * tile_size;
    pair = blockIdx.x / columns / tiles;
    batch = pair / d.heads;
    head = pair % d.heads;
  }
};

__device__ __forceinline__ int rows_in(int64_t first, int64_t tokens) {
  return static_cast<int>(min(static_cast<int64_t>(tile_size), tokens - first));
}

/// Rows of a head: `part` 0, 1, 2 for q, k, v.
template <typename T>
__device__ __forceinline__ TileRows<T> head_rows(const AttentionDims& d, const T* qkv, const Share& share, int part, int64_t first) {
  const int64_t width = d.heads * d.head_dim;
  return {qkv + (share.batch * d.tokens + first) * 3 * width + part * width + share.head * d.head_dim, 3 * width, rows_in(first, d.tokens)};
}
/// Rows of a head of y or dy.
template <typename T>
__device__ __forceinline__ TileRows<T> head_rows(const AttentionDims& d, const T* y, const Share& share, int64_t first) {
  const int64_t width = d.heads * d.head_dim;
  return {y + (share.batch * d.tokens + first) * width + share.head * d.head_dim, width, rows_in(first, d.tokens)};
}

__device__ __forceinline__ bool visible(const AttentionDims& d, int64_t query, int64_t key) {
  return key < d.tokens && (d.mask == AttentionMask::none || key <= query);
}
/// One past the last key that the 64 queries from `first` on see.
__device__ __forceinline__ int64_t last_key(const AttentionDims& d, int64_t first) {
  return d.mask == AttentionMask::causal ? min(d.tokens, first + tile_size) : d.tokens;
}
__device__ __forceinline__ float score_scale(const AttentionDims& d) { return 1.0f / sqrtf(static_cast<float>(d.head_dim)); }

/// Scores become e^(score - max), the running maxima and sums go on, and `out` is rescaled to the new maxima.
__device__ __forceinline__ void softmax_step(const AttentionDims& d, int64_t query, int64_t key, TilePart& scores, float (&largest)[4],
                                             float (&sums)[4], TilePart& out) {
  const float scale = score_scale(d);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float top = largest[i], sum = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      scores.v[i][j] = visible(d, query + i, key + j) ? scores.v[i][j] * scale : -INFINITY;
      top = fmaxf(top, scores.v[i][j]);
    }
    top = tile_row_max(top);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum += scores.v[i][j] = expf(scores.v[i][j] - top);
    const float shrink = expf(largest[i] - top);
    largest[i] = top;
    sums[i] = sums[i] * shrink + tile_row_sum(sum);
#pragma unroll
    for (int j = 0; j < 4; ++j) out.v[i][j] *= shrink;
  }
}

template <typename T>
__global__ void __launch_bounds__(tile_threads) forward_kernel(AttentionDims d, const T* qkv, T* y, float* lse) {
  __shared__ TileOperands operands;
  const Share share(d);
  const TileRows<T> queries = head_rows(d, qkv, share, 0, share.first);
  float largest[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, sums[4] = {};
  TilePart out{};
  for (int64_t key = 0; key < last_key(d, share.first); key += tile_size) {
    TilePart scores = row_products(operands, queries, head_rows(d, qkv, share, 1, key), d.head_dim);
    softmax_step(d, share.first + tile_row(), key + tile_column(), scores, largest, sums, out);
    apply_tile(operands, scores, head_rows(d, qkv, share, 2, key), share.column, d.head_dim, out);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t query = share.first + tile_row() + i;
    if (share.column == 0 && tile_column() == 0 && query < d.tokens) lse[share.pair * d.tokens + query] = largest[i] + logf(sums[i]);
#pragma unroll
    for (int j = 0; j < 4; ++j) out.v[i][j] /= sums[i];
  }
  const int64_t width = d.heads * d.head_dim;
  write_tile(out, 1.0f, y + (share.batch * d.tokens + share.first) * width + share.head * d.head_dim, width, queries.count, share.column,
             d.head_dim, Accumulate::overwrite);
}

/// delta = Σ dy·y of each row and head.
template <typename T>
struct Delta {
  AttentionDims d;
  const T *y, *dy;
  float* delta;
  template <int V, int Lanes>
  __device__ void run(int64_t index, bool valid) const {
    const int64_t end = valid ? d.head_dim : 0, at = index * d.head_dim;
    float sum = 0;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto a = load<V>(y + at + c), b = load<V>(dy + at + c);
#pragma unroll
      for (int k = 0; k < V; ++k) sum += widen(a.v[k]) * widen(b.v[k]);
    }
    sum = group_sum<Lanes>(sum);
    const int64_t row = index / d.heads, head = index - row * d.heads, batch = row / d.tokens, token = row - batch * d.tokens;
    if (valid && threadIdx.x % Lanes == 0) delta[(batch * d.heads + head) * d.tokens + token] = sum;
  }
};

template <typename T>
struct BackwardArgs {
  AttentionDims d;
  const T* qkv;
  const float* lse;
  const T* dy;
  T* dqkv;
  Accumulate mode;
  const float* delta;
};

template <typename T>
__device__ __forceinline__ T* gradient_rows(const BackwardArgs<T>& a, const Share& share, int part) {
  const int64_t width = a.d.heads * a.d.head_dim;
  return a.dqkv + (share.batch * a.d.tokens + share.first) * 3 * width + part * width + share.head * a.d.head_dim;
}

template <typename T>
__global__ void __launch_bounds__(tile_threads) backward_q_kernel(BackwardArgs<T> a) {
  __shared__ TileOperands operands;
  const AttentionDims& d = a.d;
  const Share share(d);
  const TileRows<T> queries = head_rows(d, a.qkv, share, 0, share.first), dys = head_rows(d, a.dy, share, share.first);
  const float scale = score_scale(d);
  float lse[4], delta[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t query = min(share.first + tile_row() + i, d.tokens - 1);
    lse[i] = a.lse[share.pair * d.tokens + query], delta[i] = a.delta[share.pair * d.tokens + query];
  }
  TilePart dq{};
  for (int64_t key = 0; key < last_key(d, share.first); key += tile_size) {
    const TileRows<T> keys = head_rows(d, a.qkv, share, 1, key);
    const TilePart scores = row_products(operands, queries, keys, d.head_dim);
    TilePart ds = row_products(operands, dys, head_rows(d, a.qkv, share, 2, key), d.head_dim);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool seen = visible(d, share.first + tile_row() + i, key + tile_column() + j);
        ds.v[i][j] = seen ? expf(scores.v[i][j] * scale - lse[i]) * (ds.v[i][j] - delta[i]) : 0.0f;
      }
    apply_tile(operands, ds, keys, share.column, d.head_dim, dq);
  }
  write_tile(dq, scale, gradient_rows(a, share, 0), 3 * d.heads * d.head_dim, queries.count, share.column, d.head_dim, a.mode);
}

/// Here a tile's rows are keys and its columns queries.
template <typename T>
__global__ void __launch_bounds__(tile_threads) backward_kv_kernel(BackwardArgs<T> a) {
  __shared__ TileOperands operands;
  const AttentionDims& d = a.d;
  const Share share(d);
  const TileRows<T> keys = head_rows(d, a.qkv, share, 1, share.first), values = head_rows(d, a.qkv, share, 2, share.first);
  const float scale = score_scale(d);
  TilePart dk{}, dv{};
  for (int64_t query = d.mask == AttentionMask::causal ? share.first : 0; query < d.tokens; query += tile_size) {
    const TileRows<T> queries = head_rows(d, a.qkv, share, 0, query), dys = head_rows(d, a.dy, share, query);
    TilePart p = row_products(operands, keys, queries, d.head_dim);
    TilePart ds = row_products(operands, values, dys, d.head_dim);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t column = query + tile_column() + j, at = share.pair * d.tokens + min(column, d.tokens - 1);
      const float lse = a.lse[at], delta = a.delta[at];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool seen = column < d.tokens && visible(d, column, share.first + tile_row() + i);
        p.v[i][j] = seen ? expf(p.v[i][j] * scale - lse) : 0.0f;
        ds.v[i][j] = seen ? p.v[i][j] * (ds.v[i][j] - delta) : 0.0f;
      }
    }
    apply_tile(operands, p, dys, share.column, d.head_dim, dv);
    apply_tile(operands, ds, queries, share.column, d.head_dim, dk);
  }
  const int64_t stride = 3 * d.heads * d.head_dim;
  write_tile(dk, scale, gradient_rows(a, share, 1), stride, keys.count, share.column, d.head_dim, a.mode);
  write_tile(dv, 1.0f, gradient_rows(a, share, 2), stride, keys.count, share.column, d.head_dim, a.mode);
}

unsigned blocks_for(const AttentionDims& d) {
  const int64_t columns = (d.head_dim + tile_size - 1) / tile_size, tiles = (d.tokens + tile_size - 1) / tile_size;
  return static_cast<unsigned>(d.batch * d.heads * tiles * columns);
}

}  // namespace

template <typename T>
void attention_forward_any(const Stream& stream, const AttentionDims& dims, const T* qkv, T* y, float* lse) {
  forward_kernel<T><<<blocks_for(dims), tile_threads, 0, native(stream)>>>(dims, qkv, y, lse);
  cuda_check(cudaGetLastError(), "attention_forward");
}

template <typename T>
void attention_backward_any(const Stream& stream, const AttentionDims& dims, const T* qkv, const T* y, const float* lse, const T* dy,
                            T* dqkv, Accumulate mode, float* delta) {
  by_rows<T>(stream, dims.batch * dims.tokens * dims.heads, dims.head_dim, Delta<T>{dims, y, dy, delta}, "attention_backward", y, dy);
  const BackwardArgs<T> args{dims, qkv, lse, dy, dqkv, mode, delta};
  backward_q_kernel<T><<<blocks_for(dims), tile_threads, 0, native(stream)>>>(args);
  cuda_check(cudaGetLastError(), "attention_backward");
  backward_kv_kernel<T><<<blocks_for(dims), tile_threads, 0, native(stream)>>>(args);
  cuda_check(cudaGetLastError(), "attention_backward");
}

template void attention_forward_any(const Stream&, const AttentionDims&, const float*, float*, float*);
template void attention_forward_any(const Stream&, const AttentionDims&, const bf16*, bf16*, float*);
template void attention_backward_any(const Stream&, const AttentionDims&, const float*, const float*, const float*, const float*, float*,
                                     Accumulate, float*);
template void attention_backward_any(const Stream&, const AttentionDims&, const bf16*, const bf16*, const float*, const bf16*, bf16*,
                                     Accumulate, float*);

}  // namespace ermoe::cuda
