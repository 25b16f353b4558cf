// LayerNorm on the CPU. A row fits the first cache, so the loops over it after the first cost no memory traffic: x is read
// once forward, x and dy once backward.
#include "ops/kernels/layer_norm.h"

#include "ops/cpu/store.h"

#include <algorithm>
#include <cmath>

namespace ermoe::cpu {
namespace {

template <typename T>
void forward_row(const LayerNormDims& dims, const T* row, const T* w, const T* b, T* y, T& mean, T& rstd) {
  const int64_t n = dims.cols;
  T sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < n; ++c) sum += row[c];
  const T m = sum / static_cast<T>(n);
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < n; ++c) squares += (row[c] - m) * (row[c] - m);
  const T s = 1 / std::sqrt(squares / static_cast<T>(n) + static_cast<T>(dims.eps));
  mean = m;
  rstd = s;
  store(n, y, Accumulate::overwrite, [=](int64_t c) { return (row[c] - m) * s * w[c] + b[c]; });
}

/// One row of dx. With g = dy w: rstd (g - mean(g) - x̂ mean(g x̂)).
template <typename T>
void backward_row(int64_t n, const T* x, const T* w, T mean, T rstd, const T* dy, T* dx, Accumulate mode) {
  T sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
  for (int64_t c = 0; c < n; ++c) {
    const T g = dy[c] * w[c];
    sum += g;
    dot += g * (x[c] - mean);
  }
  const T mean_g = sum / static_cast<T>(n), slope = dot * rstd * rstd / static_cast<T>(n);
  store(n, dx, mode, [=](int64_t c) { return rstd * (dy[c] * w[c] - mean_g - (x[c] - mean) * slope); });
}

}  // namespace

template <typename T>
void layer_norm_forward(const LayerNormDims& dims, const T* x, const T* w, const T* b, T* y, Master<T>* mean, Master<T>* rstd) {
#pragma omp parallel for schedule(static) if (dims.rows * dims.cols > 16384)
  for (int64_t r = 0; r < dims.rows; ++r) forward_row(dims, x + r * dims.cols, w, b, y + r * dims.cols, mean[r], rstd[r]);
}

template <typename T>
void add_layer_norm_forward(const LayerNormDims& dims, const T* x, const T* branch, const T* w, const T* b, T* sum, T* y, Master<T>* mean,
                            Master<T>* rstd) {
  const int64_t n = dims.cols;
#pragma omp parallel for schedule(static) if (dims.rows * n > 16384)
  for (int64_t r = 0; r < dims.rows; ++r) {
    T* const row = sum + r * n;
    for (int64_t c = 0; c < n; ++c) row[c] = x[r * n + c] + branch[r * n + c];
    forward_row(dims, row, w, b, y + r * n, mean[r], rstd[r]);
  }
}

template <typename T>
void layer_norm_backward(const LayerNormDims& dims, const T* x, const T* w, const Master<T>* mean, const Master<T>* rstd, const T* dy,
                         Destination<T> dx, Destination<Master<T>> dw, Destination<Master<T>> db, Master<T>* partials) {
  const int64_t n = dims.cols, count = dims.chunks().count();
  T *dw_partials = partials, *db_partials = partials + count * n;
#pragma omp parallel for schedule(static) if (dims.rows * n > 16384)
  for (int64_t chunk = 0; chunk < count; ++chunk) {
    T *pw = dw_partials + chunk * n, *pb = db_partials + chunk * n;
    std::fill(pw, pw + n, T(0));
    std::fill(pb, pb + n, T(0));
    for (int64_t r = dims.chunks().begin(chunk); r < dims.chunks().end(chunk); ++r) {
      const T *row = x + r * n, *d = dy + r * n;
      const T m = mean[r], s = rstd[r];
      if (dx.data != nullptr) backward_row(n, row, w, m, s, d, dx.data + r * n, dx.mode);
      if (dw.data != nullptr) store(n, pw, Accumulate::add, [=](int64_t c) { return d[c] * ((row[c] - m) * s); });
      if (db.data != nullptr) store(n, pb, Accumulate::add, [=](int64_t c) { return d[c]; });
    }
  }
  if (dw.data != nullptr) sum_partials(count, n, dw_partials, dw.data, dw.mode);
  if (db.data != nullptr) sum_partials(count, n, db_partials, db.data, db.mode);
}

template void layer_norm_forward(const LayerNormDims&, const float*, const float*, const float*, float*, float*, float*);
template void layer_norm_forward(const LayerNormDims&, const double*, const double*, const double*, double*, double*, double*);
template void add_layer_norm_forward(const LayerNormDims&, const float*, const float*, const float*, const float*, float*, float*, float*,
                                     float*);
template void add_layer_norm_forward(const LayerNormDims&, const double*, const double*, const double*, const double*, double*, double*,
                                     double*, double*);
template void layer_norm_backward(const LayerNormDims&, const float*, const float*, const float*, const float*, const float*,
                                  Destination<float>, Destination<float>, Destination<float>, float*);
template void layer_norm_backward(const LayerNormDims&, const double*, const double*, const double*, const double*, const double*,
                                  Destination<double>, Destination<double>, Destination<double>, double*);

}  // namespace ermoe::cpu
