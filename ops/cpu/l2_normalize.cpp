// Row normalisation on the CPU.
#include "ops/kernels/l2_normalize.h"

#include "ops/cpu/store.h"

#include <algorithm>
#include <cmath>

namespace ermoe::cpu {

template <typename T>
void l2_normalize_forward(const L2NormalizeDims& dims, const T* x, T* y, Master<T>* norm) {
  const int64_t n = dims.cols;
#pragma omp parallel for schedule(static) if (dims.rows * n > 16384)
  for (int64_t r = 0; r < dims.rows; ++r) {
    const T* row = x + r * n;
    T squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t c = 0; c < n; ++c) squares += row[c] * row[c];
    norm[r] = std::sqrt(squares);
    const T inverse = 1 / std::max(norm[r], static_cast<T>(dims.eps));
    store(n, y + r * n, Accumulate::overwrite, [=](int64_t c) { return row[c] * inverse; });
  }
}

template <typename T>
void l2_normalize_backward(const L2NormalizeDims& dims, const T* y, const Master<T>* norm, const T* dy, T* dx, Accumulate mode) {
  const int64_t n = dims.cols;
  const auto eps = static_cast<T>(dims.eps);
#pragma omp parallel for schedule(static) if (dims.rows * n > 16384)
  for (int64_t r = 0; r < dims.rows; ++r) {
    const T *unit = y + r * n, *d = dy + r * n;
    T dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t c = 0; c < n; ++c) dot += unit[c] * d[c];
    if (norm[r] < eps) dot = 0;  // divided by a constant: no projection
    const T inverse = 1 / std::max(norm[r], eps);
    store(n, dx + r * n, mode, [=](int64_t c) { return (d[c] - unit[c] * dot) * inverse; });
  }
}

template void l2_normalize_forward(const L2NormalizeDims&, const float*, float*, float*);
template void l2_normalize_forward(const L2NormalizeDims&, const double*, double*, double*);
template void l2_normalize_backward(const L2NormalizeDims&, const float*, const float*, const float*, float*, Accumulate);
template void l2_normalize_backward(const L2NormalizeDims&, const double*, const double*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
