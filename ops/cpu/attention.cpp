// Attention on the CPU. Threads share out (batch, head) pairs; each packs K and V of its pair once and walks over blocks
// of queries with one tile of scores, (queries of the block, T) and at most ~128 KiB, in its own memory. A pair is always
// one thread's work, so results do not depend on the number of threads. Read next: ops/cpu/attention_tile.h.
#include "ops/kernels/attention.h"
#include "ops/cpu/attention_tile.h"
#include "ops/cpu/softmax_row.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

namespace ermoe::cpu {
namespace {

int64_t threads_for(const AttentionDims& dims) {
  const int64_t pairs = dims.batch * dims.heads;
  if (pairs * dims.tokens * dims.tokens * dims.head_dim < 262144) return 1;  // starting threads would cost more than the work
  return std::min<int64_t>(omp_get_max_threads(), pairs);
}

template <typename T>
struct ForwardTile {
  T* keys;    // Kᵀ (Dh, T) in panels, times 1/√Dh
  T* values;  // V (T, Dh) in panels
  T* scores;  // (block, row_length(T))
  T* sums;    // (block): Σ_j e^(score - max)
  T* out;     // (block, row_length(Dh))

  ForwardTile(const AttentionDims& d, Pieces<T>& pieces)
      : keys(pieces.take(d.head_dim * row_length(d.tokens))),
        values(pieces.take(d.tokens * row_length(d.head_dim))),
        scores(pieces.take(query_block(d) * row_length(d.tokens))),
        sums(pieces.take(query_block(d))),
        out(pieces.take(query_block(d) * row_length(d.head_dim))) {}
};

template <typename T>
struct BackwardTile {
  T* keys;      // Kᵀ (Dh, T) in panels, times 1/√Dh
  T* values;    // Vᵀ (Dh, T) in panels
  T* key_rows;  // K (T, Dh) in panels, times 1/√Dh
  T* queries;   // Q of the block (block, Dh) in panels, times 1/√Dh
  T* dys;       // dy of the block (block, Dh) in panels
  T* scores;    // (block, row_length(T)): P
  T* dscores;   // (block, row_length(T)): dS
  T* dq;        // (block, row_length(Dh))
  T* dk;        // (T, row_length(Dh))
  T* dv;        // (T, row_length(Dh))

  BackwardTile(const AttentionDims& d, Pieces<T>& pieces)
      : keys(pieces.take(d.head_dim * row_length(d.tokens))),
        values(pieces.take(d.head_dim * row_length(d.tokens))),
        key_rows(pieces.take(d.tokens * row_length(d.head_dim))),
        queries(pieces.take(query_block(d) * row_length(d.head_dim))),
        dys(pieces.take(query_block(d) * row_length(d.head_dim))),
        scores(pieces.take(query_block(d) * row_length(d.tokens))),
        dscores(pieces.take(query_block(d) * row_length(d.tokens))),
        dq(pieces.take(query_block(d) * row_length(d.head_dim))),
        dk(pieces.take(d.tokens * row_length(d.head_dim))),
        dv(pieces.take(d.tokens * row_length(d.head_dim))) {}
};

template <typename T>
void forward_block(const AttentionDims& d, const ForwardTile<T>& tile, int64_t first, int64_t count, const T* q, T* y, T* lse) {
  const int64_t width = d.width(), keys = visible(d, first + count - 1);
  const int64_t lds = row_length(d.tokens), ldo = row_length(d.head_dim);
  tile_gemm(count, keys, d.head_dim, {q + first * 3 * width, 3 * width, 1}, tile.keys, d.head_dim, tile.scores, lds, Accumulate::overwrite);
  for (int64_t i = 0; i < count; ++i) {
    T* const row = tile.scores + i * lds;
    const int64_t seen = visible(d, first + i);
    const T largest = row_max(seen, row);
    tile.sums[i] = exp_row(seen, largest, row);
    std::fill(row + seen, row + keys, T(0));
    lse[first + i] = largest + std::log(tile.sums[i]);
  }
  tile_gemm(count, d.head_dim, keys, {tile.scores, lds, 1}, tile.values, d.tokens, tile.out, ldo, Accumulate::overwrite);
  for (int64_t i = 0; i < count; ++i) {
    const T scale = 1 / tile.sums[i];
    T* const to = y + (first + i) * width;
    for (int64_t c = 0; c < d.head_dim; ++c) to[c] = tile.out[i * ldo + c] * scale;
  }
}

/// P from scores, then dS = P ∘ (dP - Δ), Δ = dy·y of the row.
template <typename T>
void score_gradients(const AttentionDims& d, const BackwardTile<T>& tile, int64_t first, int64_t count, const T* y, const T* dy,
                     const T* lse) {
  const int64_t width = d.width(), keys = visible(d, first + count - 1), lds = row_length(d.tokens);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t seen = visible(d, first + i);
    const T delta = row_dot(d.head_dim, y + (first + i) * width, dy + (first + i) * width);
    const T shift = lse[first + i];
    T* const p = tile.scores + i * lds;
    T* const dp = tile.dscores + i * lds;
#pragma omp simd
    for (int64_t j = 0; j < seen; ++j) {
      p[j] = exp_of(p[j] - shift);
      dp[j] = p[j] * (dp[j] - delta);
    }
    std::fill(p + seen, p + keys, T(0));
    std::fill(dp + seen, dp + keys, T(0));
  }
}

template <typename T>
void backward_block(const AttentionDims& d, const BackwardTile<T>& tile, int64_t first, int64_t count, const T* q, const T* y, const T* lse,
                    const T* dy, T* dq, Accumulate mode) {
  const int64_t width = d.width(), dh = d.head_dim, keys = visible(d, first + count - 1);
  const int64_t lds = row_length(d.tokens), ldo = row_length(dh);
  const T* const q_block = q + first * 3 * width;
  const T* const dy_block = dy + first * width;
  const T scale = 1 / std::sqrt(static_cast<T>(dh));
  pack_panels(count, dh, q_block, 3 * width, scale, tile.queries);
  pack_panels(count, dh, dy_block, width, T(1), tile.dys);
  tile_gemm(count, keys, dh, {q_block, 3 * width, 1}, tile.keys, dh, tile.scores, lds, Accumulate::overwrite);
  tile_gemm(count, keys, dh, {dy_block, width, 1}, tile.values, dh, tile.dscores, lds, Accumulate::overwrite);
  score_gradients(d, tile, first, count, y, dy, lse);
  tile_gemm(count, dh, keys, {tile.dscores, lds, 1}, tile.key_rows, d.tokens, tile.dq, ldo, Accumulate::overwrite);
  tile_gemm(keys, dh, count, {tile.dscores, 1, lds}, tile.queries, count, tile.dk, ldo, Accumulate::add);
  tile_gemm(keys, dh, count, {tile.scores, 1, lds}, tile.dys, count, tile.dv, ldo, Accumulate::add);
  write_rows(count, dh, tile.dq, ldo, dq + first * 3 * width, 3 * width, mode);
}

}  // namespace

int64_t attention_forward_scratch(const AttentionDims& dims) { return threads_for(dims) * scratch_per_thread<ForwardTile<float>>(dims); }
int64_t attention_backward_scratch(const AttentionDims& dims) { return threads_for(dims) * scratch_per_thread<BackwardTile<float>>(dims); }

template <typename T>
void attention_forward(const AttentionDims& d, const T* qkv, T* y, Master<T>* lse, T* scratch) {
  const int64_t width = d.width(), per_thread = scratch_per_thread<ForwardTile<float>>(d), block = query_block(d);
  const T scale = 1 / std::sqrt(static_cast<T>(d.head_dim));
#pragma omp parallel for num_threads(static_cast <int>(threads_for(d))) schedule(static)
  for (int64_t pair = 0; pair < d.batch * d.heads; ++pair) {
    Pieces<T> pieces(scratch + omp_get_thread_num() * per_thread);
    const ForwardTile<T> tile(d, pieces);
    const int64_t b = pair / d.heads, column = pair % d.heads * d.head_dim;
    const T* const q = qkv + b * d.tokens * 3 * width + column;
    pack_panels_transposed(d.head_dim, d.tokens, q + width, 3 * width, scale, tile.keys);
    pack_panels(d.tokens, d.head_dim, q + 2 * width, 3 * width, T(1), tile.values);
    for (int64_t first = 0; first < d.tokens; first += block)
      forward_block(d, tile, first, std::min(block, d.tokens - first), q, y + b * d.tokens * width + column, lse + pair * d.tokens);
  }
}

template <typename T>
void attention_backward(const AttentionDims& d, const T* qkv, const T* y, const Master<T>* lse, const T* dy, T* dqkv, Accumulate mode,
                        T* scratch) {
  const int64_t width = d.width(), dh = d.head_dim, ldo = row_length(dh);
  const int64_t per_thread = scratch_per_thread<BackwardTile<float>>(d), block = query_block(d);
  const T scale = 1 / std::sqrt(static_cast<T>(dh));
#pragma omp parallel for num_threads(static_cast <int>(threads_for(d))) schedule(static)
  for (int64_t pair = 0; pair < d.batch * d.heads; ++pair) {
    Pieces<T> pieces(scratch + omp_get_thread_num() * per_thread);
    const BackwardTile<T> tile(d, pieces);
    const int64_t b = pair / d.heads, column = pair % d.heads * dh;
    const T* const q = qkv + b * d.tokens * 3 * width + column;
    T* const dq = dqkv + b * d.tokens * 3 * width + column;
    pack_panels_transposed(dh, d.tokens, q + width, 3 * width, scale, tile.keys);
    pack_panels_transposed(dh, d.tokens, q + 2 * width, 3 * width, T(1), tile.values);
    pack_panels(d.tokens, dh, q + width, 3 * width, scale, tile.key_rows);
    std::fill(tile.dk, tile.dk + d.tokens * ldo, T(0));
    std::fill(tile.dv, tile.dv + d.tokens * ldo, T(0));
    const int64_t at = b * d.tokens * width + column;
    for (int64_t first = 0; first < d.tokens; first += block)
      backward_block(d, tile, first, std::min(block, d.tokens - first), q, y + at, lse + pair * d.tokens, dy + at, dq, mode);
    write_rows(d.tokens, dh, tile.dk, ldo, dq + width, 3 * width, mode);
    write_rows(d.tokens, dh, tile.dv, ldo, dq + 2 * width, 3 * width, mode);
  }
}

template void attention_forward(const AttentionDims&, const float*, float*, float*, float*);
template void attention_forward(const AttentionDims&, const double*, double*, double*, double*);
template void attention_backward(const AttentionDims&, const float*, const float*, const float*, const float*, float*, Accumulate, float*);
template void attention_backward(const AttentionDims&, const double*, const double*, const double*, const double*, double*, Accumulate,
                                 double*);

}  // namespace ermoe::cpu
