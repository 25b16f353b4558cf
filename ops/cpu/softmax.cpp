// Softmax on the CPU, one row at a time; after the first loop a row is in cache.
#include "ops/kernels/softmax.h"

#include "ops/cpu/store.h"
#include "ops/cpu/vector_math.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void softmax_forward(const SoftmaxDims& dims, const T* x, T* y) {
  const int64_t n = dims.cols;
#pragma omp parallel for schedule(static) if (dims.rows * n > 4096)
  for (int64_t r = 0; r < dims.rows; ++r) {
    const T* row = x + r * n;
    T* out = y + r * n;
    T largest = row[0], sum = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t c = 0; c < n; ++c) largest = std::max(largest, row[c]);
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; ++c) {
      out[c] = exp_of(row[c] - largest);
      sum += out[c];
    }
    const T inverse = 1 / sum;
    for (int64_t c = 0; c < n; ++c) out[c] *= inverse;
  }
}

template <typename T>
void softmax_backward(const SoftmaxDims& dims, const T* y, const T* dy, T* dx, Accumulate mode) {
  const int64_t n = dims.cols;
#pragma omp parallel for schedule(static) if (dims.rows * n > 16384)
  for (int64_t r = 0; r < dims.rows; ++r) {
    const T *p = y + r * n, *d = dy + r * n;
    T dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t c = 0; c < n; ++c) dot += p[c] * d[c];
    store(n, dx + r * n, mode, [=](int64_t c) { return p[c] * (d[c] - dot); });
  }
}

template void softmax_forward(const SoftmaxDims&, const float*, float*);
template void softmax_forward(const SoftmaxDims&, const double*, double*);
template void softmax_backward(const SoftmaxDims&, const float*, const float*, float*, Accumulate);
template void softmax_backward(const SoftmaxDims&, const double*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
