// Normalisation of queries and keys on the CPU: 2H short LayerNorms a token. The weights' gradients are summed in two
// levels, as in ops/kernels/column_sum.h.
#include "ops/kernels/qk_norm.h"

#include "ops/cpu/store.h"

#include <algorithm>
#include <cmath>

namespace ermoe::cpu {
namespace {

constexpr int64_t parallel_from = 16384;  // elements

template <typename T>
void normalise(int64_t n, const T* x, const T* w, const T* b, double eps, T* y, T* mean, T* rstd) {
  T sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < n; ++c) sum += x[c];
  const T m = *mean = sum / static_cast<T>(n);
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < n; ++c) squares += (x[c] - m) * (x[c] - m);
  const T s = *rstd = 1 / std::sqrt(squares / static_cast<T>(n) + static_cast<T>(eps));
  store(n, y, Accumulate::overwrite, [=](int64_t c) { return (x[c] - m) * s * w[c] + b[c]; });
}

/// With g = dy w: rstd (g - mean(g) - x̂ mean(g x̂)).
template <typename T>
void normalise_backward(int64_t n, const T* x, const T* w, T mean, T rstd, const T* dy, T* dx, Accumulate mode) {
  T sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
  for (int64_t c = 0; c < n; ++c) {
    sum += dy[c] * w[c];
    dot += dy[c] * w[c] * (x[c] - mean);
  }
  const T mean_g = sum / static_cast<T>(n), slope = dot * rstd * rstd / static_cast<T>(n);
  store(n, dx, mode, [=](int64_t c) { return rstd * (dy[c] * w[c] - mean_g - (x[c] - mean) * slope); });
}

}  // namespace

template <typename T>
void qk_norm_forward(const QkNormDims& dims, const T* qkv, const QkNormWeights<T>& weights, T* y, Master<T>* mean, Master<T>* rstd) {
  const int64_t heads = dims.heads, dh = dims.head_dim, width = dims.width();
#pragma omp parallel for schedule(static) if (dims.rows * width > parallel_from)
  for (int64_t r = 0; r < dims.rows; ++r) {
    const T* const x = qkv + r * 3 * width;
    T* const to = y + r * 3 * width;
    for (int64_t h = 0; h < 2 * heads; ++h) {
      const T *w = h < heads ? weights.q_w : weights.k_w, *b = h < heads ? weights.q_b : weights.k_b;
      normalise(dh, x + h * dh, w, b, dims.eps, to + h * dh, mean + r * 2 * heads + h, rstd + r * 2 * heads + h);
    }
    std::copy(x + 2 * width, x + 3 * width, to + 2 * width);
  }
}

template <typename T>
void qk_norm_backward(const QkNormDims& dims, const T* qkv, const QkNormWeights<T>& weights, const Master<T>* mean, const Master<T>* rstd,
                      const T* dy, Destination<T> dqkv, const QkNormGradients<Master<T>>& gradients, Master<T>* partials) {
  const int64_t heads = dims.heads, dh = dims.head_dim, width = dims.width(), count = dims.chunks().count();
  const Destination<T> slots[4] = {gradients.q_w, gradients.q_b, gradients.k_w, gradients.k_b};
#pragma omp parallel for schedule(static) if (dims.rows * width > parallel_from)
  for (int64_t chunk = 0; chunk < count; ++chunk) {
    T* sums[4];  // of this chunk, in the order of `slots`
    for (int64_t i = 0; i < 4; ++i) std::fill_n(sums[i] = partials + (i * count + chunk) * dh, dh, T(0));
    for (int64_t r = dims.chunks().begin(chunk); r < dims.chunks().end(chunk); ++r) {
      for (int64_t h = 0; h < 2 * heads; ++h) {
        const int64_t at = r * 3 * width + h * dh, part = h < heads ? 0 : 2;
        const T *x = qkv + at, *d = dy + at, *w = part == 0 ? weights.q_w : weights.k_w;
        const T m = mean[r * 2 * heads + h], s = rstd[r * 2 * heads + h];
        if (dqkv.data != nullptr) normalise_backward(dh, x, w, m, s, d, dqkv.data + at, dqkv.mode);
        if (slots[part].data != nullptr) store(dh, sums[part], Accumulate::add, [=](int64_t c) { return d[c] * ((x[c] - m) * s); });
        if (slots[part + 1].data != nullptr) store(dh, sums[part + 1], Accumulate::add, [=](int64_t c) { return d[c]; });
      }
      const T* const dv = dy + r * 3 * width + 2 * width;
      if (dqkv.data != nullptr) store(width, dqkv.data + r * 3 * width + 2 * width, dqkv.mode, [=](int64_t c) { return dv[c]; });
    }
  }
  for (int64_t i = 0; i < 4; ++i)
    if (slots[i].data != nullptr) sum_partials(count, dh, partials + i * count * dh, slots[i].data, slots[i].mode);
}

template void qk_norm_forward(const QkNormDims&, const float*, const QkNormWeights<float>&, float*, float*, float*);
template void qk_norm_forward(const QkNormDims&, const double*, const QkNormWeights<double>&, double*, double*, double*);
template void qk_norm_backward(const QkNormDims&, const float*, const QkNormWeights<float>&, const float*, const float*, const float*,
                               Destination<float>, const QkNormGradients<float>&, float*);
template void qk_norm_backward(const QkNormDims&, const double*, const QkNormWeights<double>&, const double*, const double*, const double*,
                               Destination<double>, const QkNormGradients<double>&, double*);

}  // namespace ermoe::cpu
