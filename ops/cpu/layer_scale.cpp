// LayerScale on the CPU: bound by memory, so the backward pass makes both gradients from one reading of dy.
#include "ops/kernels/layer_scale.h"

#include "ops/cpu/store.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void layer_scale_forward(const LayerScaleDims& dims, const T* x, const T* gamma, T* y) {
  const int64_t n = dims.cols;
#pragma omp parallel for schedule(static) if (dims.rows * n > 16384)
  for (int64_t r = 0; r < dims.rows; ++r) {
    const T* row = x + r * n;
    store(n, y + r * n, Accumulate::overwrite, [=](int64_t c) { return row[c] * gamma[c]; });
  }
}

template <typename T>
void layer_scale_backward(const LayerScaleDims& dims, const T* x, const T* gamma, const T* dy, Destination<T> dx,
                          Destination<Master<T>> dgamma, Master<T>* partials) {
  const int64_t n = dims.cols, count = dims.chunks().count();
#pragma omp parallel for schedule(static) if (dims.rows * n > 16384)
  for (int64_t chunk = 0; chunk < count; ++chunk) {
    T* p = partials + chunk * n;
    std::fill(p, p + n, T(0));
    for (int64_t r = dims.chunks().begin(chunk); r < dims.chunks().end(chunk); ++r) {
      const T *row = x + r * n, *d = dy + r * n;
      if (dx.data != nullptr) store(n, dx.data + r * n, dx.mode, [=](int64_t c) { return d[c] * gamma[c]; });
      if (dgamma.data != nullptr) store(n, p, Accumulate::add, [=](int64_t c) { return d[c] * row[c]; });
    }
  }
  if (dgamma.data != nullptr) sum_partials(count, n, partials, dgamma.data, dgamma.mode);
}

template void layer_scale_forward(const LayerScaleDims&, const float*, const float*, float*);
template void layer_scale_forward(const LayerScaleDims&, const double*, const double*, double*);
template void layer_scale_backward(const LayerScaleDims&, const float*, const float*, const float*, Destination<float>, Destination<float>,
                                   float*);
template void layer_scale_backward(const LayerScaleDims&, const double*, const double*, const double*, Destination<double>,
                                   Destination<double>, double*);

}  // namespace ermoe::cpu
