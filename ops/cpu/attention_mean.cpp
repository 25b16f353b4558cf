// Head-mean attention on the CPU. An image is one thread's work, since its heads share one tile of mean probabilities:
// (queries of the block, T), as small as in ops/cpu/attention.cpp. Results do not depend on the number of threads.
#include "ops/kernels/attention_mean.h"

#include "ops/cpu/attention_tile.h"
#include "ops/cpu/softmax_row.h"
#include "ops/cpu/store.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

namespace ermoe::cpu {
namespace {

int64_t threads_for(const AttentionDims& dims) {
  if (dims.batch * dims.tokens * dims.tokens * dims.width() < 262144) return 1;
  return std::min<int64_t>(omp_get_max_threads(), dims.batch);
}

template <typename T>
struct ForwardTile {
  T* keys;    // H times Kᵀ (Dh, T) in panels, times 1/√Dh
  T* tokens;  // (T, D) in panels
  T* scores;  // (block, row_length(T)): those of one head
  T* mean;    // (block, row_length(T)): mean probabilities
  T* out;     // (block, row_length(D))

  ForwardTile(const AttentionDims& d, Pieces<T>& pieces)
      : keys(pieces.take(d.width() * row_length(d.tokens))),
        tokens(pieces.take(d.tokens * row_length(d.width()))),
        scores(pieces.take(query_block(d) * row_length(d.tokens))),
        mean(pieces.take(query_block(d) * row_length(d.tokens))),
        out(pieces.take(query_block(d) * row_length(d.width()))) {}
};

template <typename T>
struct BackwardTile {
  T* keys;      // H times Kᵀ (Dh, T) in panels, times 1/√Dh
  T* key_rows;  // H times K (T, Dh) in panels, times 1/√Dh
  T* tokens;    // tokensᵀ (D, T) in panels, times 1/H
  T* queries;   // Q of a head and block (block, Dh) in panels, times 1/√Dh
  T* dys;       // dy of the block (block, D) in panels
  T* scores;    // (block, row_length(T)): P, then dS of one head
  T* mean;      // (block, row_length(T)): mean probabilities
  T* dmean;     // (block, row_length(T)): dy tokensᵀ / H, the gradient of every head's P
  T* dq;        // (block, row_length(Dh))
  T* dk;        // H times (T, row_length(Dh))
  T* dtokens;   // (T, row_length(D))

  BackwardTile(const AttentionDims& d, Pieces<T>& pieces)
      : keys(pieces.take(d.width() * row_length(d.tokens))),
        key_rows(pieces.take(d.heads * d.tokens * row_length(d.head_dim))),
        tokens(pieces.take(d.width() * row_length(d.tokens))),
        queries(pieces.take(query_block(d) * row_length(d.head_dim))),
        dys(pieces.take(query_block(d) * row_length(d.width()))),
        scores(pieces.take(query_block(d) * row_length(d.tokens))),
        mean(pieces.take(query_block(d) * row_length(d.tokens))),
        dmean(pieces.take(query_block(d) * row_length(d.tokens))),
        dq(pieces.take(query_block(d) * row_length(d.head_dim))),
        dk(pieces.take(d.heads * d.tokens * row_length(d.head_dim))),
        dtokens(pieces.take(d.tokens * row_length(d.width()))) {}
};

/// Queries [first, first + count) of one image.
template <typename T>
void forward_block(const AttentionDims& d, const ForwardTile<T>& tile, int64_t first, int64_t count, const T* qkv, T* y, T* lse) {
  const int64_t n = d.tokens, width = d.width(), dh = d.head_dim, lds = row_length(n), ldo = row_length(width);
  for (int64_t h = 0; h < d.heads; ++h) {
    const LeftMatrix<T> q{qkv + first * 3 * width + h * dh, 3 * width, 1};
    tile_gemm(count, n, dh, q, tile.keys + h * dh * lds, dh, tile.scores, lds, Accumulate::overwrite);
    for (int64_t i = 0; i < count; ++i) {
      T* const row = tile.scores + i * lds;
      const T largest = row_max(n, row), sum = exp_row(n, largest, row), share = 1 / (sum * static_cast<T>(d.heads));
      store(n, tile.mean + i * lds, h == 0 ? Accumulate::overwrite : Accumulate::add, [=](int64_t j) { return row[j] * share; });
      lse[h * n + first + i] = largest + std::log(sum);
    }
  }
  tile_gemm(count, width, n, {tile.mean, lds, 1}, tile.tokens, n, tile.out, ldo, Accumulate::overwrite);
  write_rows(count, width, tile.out, ldo, y + first * width, width, Accumulate::overwrite);
}

/// P of one head from its scores, added to the mean; then dS = P ∘ (dA - Σ_j P dA) in its place.
template <typename T>
void head_gradients(const AttentionDims& d, const BackwardTile<T>& tile, int64_t h, int64_t count, const T* lse) {
  const int64_t n = d.tokens, lds = row_length(n);
  const T share = 1 / static_cast<T>(d.heads);
  for (int64_t i = 0; i < count; ++i) {
    T* const p = tile.scores + i * lds;
    const T* const da = tile.dmean + i * lds;
    const T shift = lse[i];
    store(n, p, Accumulate::overwrite, [=](int64_t j) { return exp_of(p[j] - shift); });
    store(n, tile.mean + i * lds, h == 0 ? Accumulate::overwrite : Accumulate::add, [=](int64_t j) { return p[j] * share; });
    const T delta = row_dot(n, p, da);
    store(n, p, Accumulate::overwrite, [=](int64_t j) { return p[j] * (da[j] - delta); });
  }
}

template <typename T>
void backward_block(const AttentionDims& d, const BackwardTile<T>& tile, int64_t first, int64_t count, const T* qkv, const T* lse,
                    const T* dy, T* dqkv, Accumulate mode) {
  const int64_t n = d.tokens, width = d.width(), dh = d.head_dim, lds = row_length(n), ldo = row_length(dh);
  const T scale = 1 / std::sqrt(static_cast<T>(dh));
  const T* const dy_block = dy + first * width;
  pack_panels(count, width, dy_block, width, T(1), tile.dys);
  tile_gemm(count, n, width, {dy_block, width, 1}, tile.tokens, width, tile.dmean, lds, Accumulate::overwrite);
  for (int64_t h = 0; h < d.heads; ++h) {
    const T* const q = qkv + first * 3 * width + h * dh;
    tile_gemm(count, n, dh, {q, 3 * width, 1}, tile.keys + h * dh * lds, dh, tile.scores, lds, Accumulate::overwrite);
    head_gradients(d, tile, h, count, lse + h * n + first);
    if (dqkv == nullptr) continue;
    pack_panels(count, dh, q, 3 * width, scale, tile.queries);
    tile_gemm(count, dh, n, {tile.scores, lds, 1}, tile.key_rows + h * n * ldo, n, tile.dq, ldo, Accumulate::overwrite);
    tile_gemm(n, dh, count, {tile.scores, 1, lds}, tile.queries, count, tile.dk + h * n * ldo, ldo, Accumulate::add);
    write_rows(count, dh, tile.dq, ldo, dqkv + first * 3 * width + h * dh, 3 * width, mode);
  }
  tile_gemm(n, width, count, {tile.mean, 1, lds}, tile.dys, count, tile.dtokens, row_length(width), Accumulate::add);
}

/// dk of every head from the private sums, and dv = 0.
template <typename T>
void finish_dqkv(const AttentionDims& d, const BackwardTile<T>& tile, T* dqkv, Accumulate mode) {
  const int64_t n = d.tokens, width = d.width(), dh = d.head_dim, ldo = row_length(dh);
  for (int64_t h = 0; h < d.heads; ++h) write_rows(n, dh, tile.dk + h * n * ldo, ldo, dqkv + width + h * dh, 3 * width, mode);
  if (mode == Accumulate::overwrite)
    for (int64_t i = 0; i < n; ++i) std::fill_n(dqkv + i * 3 * width + 2 * width, width, T(0));
}

}  // namespace

int64_t attention_mean_forward_scratch(const AttentionDims& dims) {
  return threads_for(dims) * scratch_per_thread<ForwardTile<float>>(dims);
}
int64_t attention_mean_backward_scratch(const AttentionDims& dims) {
  return threads_for(dims) * scratch_per_thread<BackwardTile<float>>(dims);
}

template <typename T>
void attention_mean_forward(const AttentionDims& d, const T* qkv, const T* tokens, T* y, Master<T>* lse, T* scratch) {
  const int64_t n = d.tokens, width = d.width(), dh = d.head_dim;
  const int64_t per_thread = scratch_per_thread<ForwardTile<float>>(d), block = query_block(d);
  const T scale = 1 / std::sqrt(static_cast<T>(dh));
#pragma omp parallel for num_threads(static_cast <int>(threads_for(d))) schedule(static)
  for (int64_t b = 0; b < d.batch; ++b) {
    Pieces<T> pieces(scratch + omp_get_thread_num() * per_thread);
    const ForwardTile<T> tile(d, pieces);
    const T* const x = qkv + b * n * 3 * width;
    for (int64_t h = 0; h < d.heads; ++h)
      pack_panels_transposed(dh, n, x + width + h * dh, 3 * width, scale, tile.keys + h * dh * row_length(n));
    pack_panels(n, width, tokens + b * n * width, width, T(1), tile.tokens);
    for (int64_t first = 0; first < n; first += block)
      forward_block(d, tile, first, std::min(block, n - first), x, y + b * n * width, lse + b * d.heads * n);
  }
}

template <typename T>
void attention_mean_backward(const AttentionDims& d, const T* qkv, const T* tokens, const Master<T>* lse, const T* dy, Destination<T> dqkv,
                             Destination<T> dtokens, T* scratch) {
  const int64_t n = d.tokens, width = d.width(), dh = d.head_dim, ldo = row_length(dh);
  const int64_t per_thread = scratch_per_thread<BackwardTile<float>>(d), block = query_block(d);
  const T scale = 1 / std::sqrt(static_cast<T>(dh)), share = 1 / static_cast<T>(d.heads);
#pragma omp parallel for num_threads(static_cast <int>(threads_for(d))) schedule(static)
  for (int64_t b = 0; b < d.batch; ++b) {
    Pieces<T> pieces(scratch + omp_get_thread_num() * per_thread);
    const BackwardTile<T> tile(d, pieces);
    const T* const x = qkv + b * n * 3 * width;
    T* const dx = dqkv.data == nullptr ? nullptr : dqkv.data + b * n * 3 * width;
    for (int64_t h = 0; h < d.heads; ++h) {
      pack_panels_transposed(dh, n, x + width + h * dh, 3 * width, scale, tile.keys + h * dh * row_length(n));
      pack_panels(n, dh, x + width + h * dh, 3 * width, scale, tile.key_rows + h * n * ldo);
    }
    pack_panels_transposed(width, n, tokens + b * n * width, width, share, tile.tokens);
    std::fill_n(tile.dk, d.heads * n * ldo, T(0));
    std::fill_n(tile.dtokens, n * row_length(width), T(0));
    for (int64_t first = 0; first < n; first += block)
      backward_block(d, tile, first, std::min(block, n - first), x, lse + b * d.heads * n, dy + b * n * width, dx, dqkv.mode);
    if (dx != nullptr) finish_dqkv(d, tile, dx, dqkv.mode);
    if (dtokens.data != nullptr) write_rows(n, width, tile.dtokens, row_length(width), dtokens.data + b * n * width, width, dtokens.mode);
  }
}

template void attention_mean_forward(const AttentionDims&, const float*, const float*, float*, float*, float*);
template void attention_mean_forward(const AttentionDims&, const double*, const double*, double*, double*, double*);
template void attention_mean_backward(const AttentionDims&, const float*, const float*, const float*, const float*, Destination<float>,
                                      Destination<float>, float*);
template void attention_mean_backward(const AttentionDims&, const double*, const double*, const double*, const double*, Destination<double>,
                                      Destination<double>, double*);

}  // namespace ermoe::cpu
