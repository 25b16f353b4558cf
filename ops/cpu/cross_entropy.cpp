// Losses over classes on the CPU: a row of logits is one thread's work.
#include "ops/kernels/cross_entropy.h"

#include "ops/cpu/mean_of.h"
#include "ops/cpu/softmax_row.h"
#include "ops/cpu/store.h"

#include <cmath>

namespace ermoe::cpu {
namespace {

constexpr int64_t parallel_from = 8192;  // elements: below, starting threads costs more than the work

/// Σ_y t log t.
template <typename T>
T negative_entropy(int64_t n, const T* t) {
  T sum = 0;
  for (int64_t y = 0; y < n; ++y)
    if (t[y] > 0) sum += t[y] * std::log(t[y]);
  return sum;
}

}  // namespace

template <typename T>
void cross_entropy_forward(const CrossEntropyDims& dims, const T* logits, const Master<T>* targets, const Master<T>* class_weights,
                           Master<T>* lse, Master<T>* row_losses, Master<T>* loss) {
  const int64_t n = dims.classes;
#pragma omp parallel for schedule(static) if (dims.batch * n > parallel_from)
  for (int64_t b = 0; b < dims.batch; ++b) {
    const T *x = logits + b * n, *t = targets + b * n;
    const T shift = lse[b] = row_lse(n, x);
    T sum = 0;
    if (class_weights == nullptr) {
#pragma omp simd reduction(+ : sum)
      for (int64_t y = 0; y < n; ++y) sum += t[y] * (shift - x[y]);
    } else {
#pragma omp simd reduction(+ : sum)
      for (int64_t y = 0; y < n; ++y) sum += class_weights[y] * t[y] * (shift - x[y]);
    }
    row_losses[b] = dims.offset == EntropyOffset::targets ? sum + negative_entropy(n, t) : sum;
  }
  *loss = mean_of(dims.batch, row_losses);
}

template <typename T>
void cross_entropy_backward(const CrossEntropyDims& dims, const T* logits, const Master<T>* targets, const Master<T>* class_weights,
                            const Master<T>* lse, const Master<T>* dloss, T* dlogits, Accumulate mode) {
  const int64_t n = dims.classes;
  const T scale = *dloss / static_cast<T>(dims.batch);
#pragma omp parallel for schedule(static) if (dims.batch * n > parallel_from)
  for (int64_t b = 0; b < dims.batch; ++b) {
    const T *x = logits + b * n, *t = targets + b * n, *w = class_weights;
    const T shift = lse[b];
    T mass = 0;
    if (w == nullptr) {
#pragma omp simd reduction(+ : mass)
      for (int64_t y = 0; y < n; ++y) mass += t[y];
      store(n, dlogits + b * n, mode, [=](int64_t y) { return scale * (exp_of(x[y] - shift) * mass - t[y]); });
    } else {
      mass = row_dot(n, w, t);
      store(n, dlogits + b * n, mode, [=](int64_t y) { return scale * (exp_of(x[y] - shift) * mass - w[y] * t[y]); });
    }
  }
}

template <typename T>
void sigmoid_cross_entropy_forward(const CrossEntropyDims& dims, const T* logits, const Master<T>* targets, const Master<T>* class_weights,
                                   Master<T>* row_losses, Master<T>* loss) {
  const int64_t n = dims.classes;
#pragma omp parallel for schedule(static) if (dims.batch * n > parallel_from)
  for (int64_t b = 0; b < dims.batch; ++b) {
    T sum = 0;
    for (int64_t y = 0; y < n; ++y) {
      const T x = logits[b * n + y], t = targets[b * n + y];
      const T bce = (x > 0 ? x : T(0)) - x * t + std::log1p(exp_of(-std::fabs(x)));
      sum += class_weights == nullptr ? bce : class_weights[y] * bce;
    }
    row_losses[b] = sum;
  }
  *loss = mean_of(dims.batch, row_losses);
}

template <typename T>
void sigmoid_cross_entropy_backward(const CrossEntropyDims& dims, const T* logits, const Master<T>* targets, const Master<T>* class_weights,
                                    const Master<T>* dloss, T* dlogits, Accumulate mode) {
  const int64_t n = dims.classes;
  const T scale = *dloss / static_cast<T>(dims.batch);
#pragma omp parallel for schedule(static) if (dims.batch * n > parallel_from)
  for (int64_t b = 0; b < dims.batch; ++b) {
    const T *x = logits + b * n, *t = targets + b * n, *w = class_weights;
    if (w == nullptr)
      store(n, dlogits + b * n, mode, [=](int64_t y) { return scale * (1 / (1 + exp_of(-x[y])) - t[y]); });
    else
      store(n, dlogits + b * n, mode, [=](int64_t y) { return scale * w[y] * (1 / (1 + exp_of(-x[y])) - t[y]); });
  }
}

template void cross_entropy_forward(const CrossEntropyDims&, const float*, const float*, const float*, float*, float*, float*);
template void cross_entropy_forward(const CrossEntropyDims&, const double*, const double*, const double*, double*, double*, double*);
template void cross_entropy_backward(const CrossEntropyDims&, const float*, const float*, const float*, const float*, const float*, float*,
                                     Accumulate);
template void cross_entropy_backward(const CrossEntropyDims&, const double*, const double*, const double*, const double*, const double*,
                                     double*, Accumulate);
template void sigmoid_cross_entropy_forward(const CrossEntropyDims&, const float*, const float*, const float*, float*, float*);
template void sigmoid_cross_entropy_forward(const CrossEntropyDims&, const double*, const double*, const double*, double*, double*);
template void sigmoid_cross_entropy_backward(const CrossEntropyDims&, const float*, const float*, const float*, const float*, float*,
                                             Accumulate);
template void sigmoid_cross_entropy_backward(const CrossEntropyDims&, const double*, const double*, const double*, const double*, double*,
                                             Accumulate);

}  // namespace ermoe::cpu
