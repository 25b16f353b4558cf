// Head-mean attention on the GPU, in float32 arithmetic on tiles of 64 by 64: as in cuda/kernels/attention_any.cu, every
// result has one writer, and what does not fit a block's registers is computed again: the heads' probabilities for every 64
// columns of the output, dA = dy tokensᵀ / H for every head. Contract: ops/kernels/attention_mean.h.
#include "ops/kernels/attention_mean.h"

#include "cuda/device/score_tile.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

/// What every kernel here reads.
template <typename T>
struct Args {
  AttentionDims d;
  const T *qkv, *tokens;
  const float* lse;
  const T* dy;
  float* delta;
};

/// A block's share: `tile_size` rows of one image from `first` on, one of `parts` further parts (a head, or 64 columns, or both).
struct Share {
  int64_t batch, first, part;

  __device__ Share(const AttentionDims& d, int64_t parts) {
    const int64_t tiles = (d.tokens + tile_size - 1) / tile_size;
    part = blockIdx.x % parts;
    first = blockIdx.x / parts % tiles * tile_size;
    batch = blockIdx.x / parts / tiles;
  }
};

__host__ __device__ __forceinline__ int64_t column_blocks(int64_t width) { return (width + tile_size - 1) / tile_size; }

__device__ __forceinline__ int rows_in(int64_t first, int64_t tokens) {
  return static_cast<int>(min(static_cast<int64_t>(tile_size), tokens - first));
}
/// Rows of a head of q (`part` 0) or k (1).
template <typename T>
__device__ __forceinline__ TileRows<T> head_rows(const Args<T>& a, int64_t batch, int part, int64_t head, int64_t first) {
  const int64_t width = a.d.heads * a.d.head_dim;
  return {a.qkv + (batch * a.d.tokens + first) * 3 * width + part * width + head * a.d.head_dim, 3 * width, rows_in(first, a.d.tokens)};
}
/// Rows of the tokens or of dy.
template <typename T>
__device__ __forceinline__ TileRows<T> wide_rows(const Args<T>& a, const T* x, int64_t batch, int64_t first) {
  const int64_t width = a.d.heads * a.d.head_dim;
  return {x + (batch * a.d.tokens + first) * width, width, rows_in(first, a.d.tokens)};
}
__device__ __forceinline__ float score_scale(const AttentionDims& d) { return 1.0f / sqrtf(static_cast<float>(d.head_dim)); }
/// The place of a row in lse and delta; of the last one beyond the end.
__device__ __forceinline__ int64_t at_row(const AttentionDims& d, int64_t batch, int64_t head, int64_t row) {
  return (batch * d.heads + head) * d.tokens + min(row, d.tokens - 1);
}

/// A head's log-sum-exp.
template <typename T>
__global__ void __launch_bounds__(tile_threads) lse_kernel(Args<T> a, float* lse) {
  __shared__ TileOperands operands;
  const Share share(a.d, a.d.heads);
  const TileRows<T> queries = head_rows(a, share.batch, 0, share.part, share.first);
  const float scale = score_scale(a.d);
  float largest[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, sums[4] = {};
  for (int64_t key = 0; key < a.d.tokens; key += tile_size) {
    TilePart scores = row_products(operands, queries, head_rows(a, share.batch, 1, share.part, key), a.d.head_dim);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float top = largest[i], sum = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        scores.v[i][j] = key + tile_column() + j < a.d.tokens ? scores.v[i][j] * scale : -INFINITY;
        top = fmaxf(top, scores.v[i][j]);
      }
      top = tile_row_max(top);
#pragma unroll
      for (int j = 0; j < 4; ++j) sum += expf(scores.v[i][j] - top);
      sums[i] = sums[i] * expf(largest[i] - top) + tile_row_sum(sum);
      largest[i] = top;
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t query = share.first + tile_row() + i;
    if (tile_column() == 0 && query < a.d.tokens) lse[at_row(a.d, share.batch, share.part, query)] = largest[i] + logf(sums[i]);
  }
}

enum class Rows { queries, keys };  // what a tile's rows stand for; its columns stand for the other

/// Probabilities of one head for a tile of rows from `row` and columns from `column`; zero where there is no such pair.
template <Rows R, typename T>
__device__ __forceinline__ TilePart probabilities(TileOperands& operands, const Args<T>& a, int64_t batch, int64_t head, int64_t row,
                                                  int64_t column) {
  constexpr bool by_query = R == Rows::queries;
  TilePart p = row_products(operands, head_rows(a, batch, by_query ? 0 : 1, head, row), head_rows(a, batch, by_query ? 1 : 0, head, column),
                            a.d.head_dim);
  const float scale = score_scale(a.d);
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t r = row + tile_row() + i, c = column + tile_column() + j;
      const float lse = a.lse[at_row(a.d, batch, head, by_query ? r : c)];
      p.v[i][j] = r < a.d.tokens && c < a.d.tokens ? expf(p.v[i][j] * scale - lse) : 0.0f;
    }
  return p;
}

/// Their mean over heads.
template <Rows R, typename T>
__device__ __forceinline__ TilePart mean_probabilities(TileOperands& operands, const Args<T>& a, int64_t batch, int64_t row,
                                                       int64_t column) {
  const float share = 1.0f / static_cast<float>(a.d.heads);
  TilePart mean{};
  for (int64_t head = 0; head < a.d.heads; ++head) {
    const TilePart p = probabilities<R>(operands, a, batch, head, row, column);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) mean.v[i][j] += p.v[i][j] * share;
  }
  return mean;
}

/// Rows of the mean attention (queries) or of its transpose (keys) times `x`: y, or the gradient of the tokens.
template <Rows R, typename T>
__global__ void __launch_bounds__(tile_threads) apply_kernel(Args<T> a, const T* x, Destination<T> y) {
  __shared__ TileOperands operands;
  const int64_t width = a.d.heads * a.d.head_dim;
  const Share share(a.d, column_blocks(width));
  const int64_t column = share.part * tile_size;
  TilePart out{};
  for (int64_t other = 0; other < a.d.tokens; other += tile_size) {
    const TilePart mean = mean_probabilities<R>(operands, a, share.batch, share.first, other);
    apply_tile(operands, mean, wide_rows(a, x, share.batch, other), column, width, out);
  }
  write_tile(out, 1.0f, y.data + (share.batch * a.d.tokens + share.first) * width, width, rows_in(share.first, a.d.tokens), column, width,
             y.mode);
}

/// dA of a tile: the gradient of every head's probabilities.
template <Rows R, typename T>
__device__ __forceinline__ TilePart probability_gradients(TileOperands& operands, const Args<T>& a, int64_t batch, int64_t row,
                                                          int64_t column) {
  const T *of_rows = R == Rows::queries ? a.dy : a.tokens, *of_columns = R == Rows::queries ? a.tokens : a.dy;
  TilePart da =
      row_products(operands, wide_rows(a, of_rows, batch, row), wide_rows(a, of_columns, batch, column), a.d.heads * a.d.head_dim);
  const float share = 1.0f / static_cast<float>(a.d.heads);
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) da.v[i][j] *= share;
  return da;
}

/// delta = Σ_j P_ij dA_ij of every head. The thread that adds to a sum is always the same.
template <typename T>
__global__ void __launch_bounds__(tile_threads) delta_kernel(Args<T> a) {
  __shared__ TileOperands operands;
  const Share share(a.d, 1);
  for (int64_t key = 0; key < a.d.tokens; key += tile_size) {
    const TilePart da = probability_gradients<Rows::queries>(operands, a, share.batch, share.first, key);
    for (int64_t head = 0; head < a.d.heads; ++head) {
      const TilePart p = probabilities<Rows::queries>(operands, a, share.batch, head, share.first, key);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float sum = 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) sum += p.v[i][j] * da.v[i][j];
        sum = tile_row_sum(sum);
        const int64_t query = share.first + tile_row() + i;
        if (tile_column() != 0 || query >= a.d.tokens) continue;
        float& delta = a.delta[at_row(a.d, share.batch, head, query)];
        delta = key == 0 ? sum : delta + sum;
      }
    }
  }
}

/// dq of a head (rows are queries), or dk (rows are keys): dS = P (dA - delta) times k or q. With dk goes dv, which is zero.
template <Rows R, typename T>
__global__ void __launch_bounds__(tile_threads) backward_kernel(Args<T> a, Destination<T> dqkv) {
  constexpr bool by_query = R == Rows::queries;
  __shared__ TileOperands operands;
  const int64_t width = a.d.heads * a.d.head_dim, columns = column_blocks(a.d.head_dim);
  const Share share(a.d, a.d.heads * columns);
  const int64_t head = share.part / columns, column = share.part % columns * tile_size;
  TilePart out{};
  for (int64_t other = 0; other < a.d.tokens; other += tile_size) {
    const TilePart da = probability_gradients<R>(operands, a, share.batch, share.first, other);
    TilePart ds = probabilities<R>(operands, a, share.batch, head, share.first, other);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t query = by_query ? share.first + tile_row() + i : other + tile_column() + j;
        ds.v[i][j] *= da.v[i][j] - a.delta[at_row(a.d, share.batch, head, query)];
      }
    apply_tile(operands, ds, head_rows(a, share.batch, by_query ? 1 : 0, head, other), column, a.d.head_dim, out);
  }
  T* const to = dqkv.data + (share.batch * a.d.tokens + share.first) * 3 * width + (by_query ? 0 : width) + head * a.d.head_dim;
  const int count = rows_in(share.first, a.d.tokens);
  write_tile(out, score_scale(a.d), to, 3 * width, count, column, a.d.head_dim, dqkv.mode);
  if (!by_query && dqkv.mode == Accumulate::overwrite)
    write_tile(TilePart{}, 0.0f, to + width, 3 * width, count, column, a.d.head_dim, Accumulate::overwrite);
}

unsigned blocks_for(const AttentionDims& d, int64_t parts) { return static_cast<unsigned>(d.batch * column_blocks(d.tokens) * parts); }

}  // namespace

template <typename T>
void attention_mean_forward(const Stream& stream, const AttentionDims& dims, const T* qkv, const T* tokens, T* y, Master<T>* lse) {
  if (dims.batch == 0 || dims.tokens == 0) return;
  const Args<T> args{dims, qkv, tokens, lse, nullptr, nullptr};
  lse_kernel<T><<<blocks_for(dims, dims.heads), tile_threads, 0, native(stream)>>>(args, lse);
  cuda_check(cudaGetLastError(), "attention_mean_forward");
  const unsigned blocks = blocks_for(dims, column_blocks(dims.width()));
  apply_kernel<Rows::queries, T><<<blocks, tile_threads, 0, native(stream)>>>(args, tokens, {y, Accumulate::overwrite});
  cuda_check(cudaGetLastError(), "attention_mean_forward");
}

template <typename T>
void attention_mean_backward(const Stream& stream, const AttentionDims& dims, const T* qkv, const T* tokens, const Master<T>* lse,
                             const T* dy, Destination<T> dqkv, Destination<T> dtokens, Master<T>* delta) {
  if (dims.batch == 0 || dims.tokens == 0) return;
  const Args<T> args{dims, qkv, tokens, lse, dy, delta};
  if (dqkv.data != nullptr) {
    delta_kernel<T><<<blocks_for(dims, 1), tile_threads, 0, native(stream)>>>(args);
    cuda_check(cudaGetLastError(), "attention_mean_backward");
    const unsigned blocks = blocks_for(dims, dims.heads * column_blocks(dims.head_dim));
    backward_kernel<Rows::queries, T><<<blocks, tile_threads, 0, native(stream)>>>(args, dqkv);
    cuda_check(cudaGetLastError(), "attention_mean_backward");
    backward_kernel<Rows::keys, T><<<blocks, tile_threads, 0, native(stream)>>>(args, dqkv);
    cuda_check(cudaGetLastError(), "attention_mean_backward");
  }
  if (dtokens.data == nullptr) return;
  apply_kernel<Rows::keys, T><<<blocks_for(dims, column_blocks(dims.width())), tile_threads, 0, native(stream)>>>(args, dy, dtokens);
  cuda_check(cudaGetLastError(), "attention_mean_backward");
}

template void attention_mean_forward(const Stream&, const AttentionDims&, const float*, const float*, float*, float*);
template void attention_mean_forward(const Stream&, const AttentionDims&, const bf16*, const bf16*, bf16*, float*);
template void attention_mean_backward(const Stream&, const AttentionDims&, const float*, const float*, const float*, const float*,
                                      Destination<float>, Destination<float>, float*);
template void attention_mean_backward(const Stream&, const AttentionDims&, const bf16*, const bf16*, const float*, const bf16*,
                                      Destination<bf16>, Destination<bf16>, float*);

}  // namespace ermoe::cuda
