// Shares of energy on the CPU.
#include "ops/kernels/energy_share.h"

#include "ops/cpu/store.h"

namespace ermoe::cpu {

template <typename T>
void energy_share_forward(const EnergyShareDims& dims, const T* x, T* y, Master<T>* total) {
  const int64_t n = dims.cols;
#pragma omp parallel for schedule(static) if (dims.rows * n > 16384)
  for (int64_t r = 0; r < dims.rows; ++r) {
    const T* row = x + r * n;
    T squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t c = 0; c < n; ++c) squares += row[c] * row[c];
    total[r] = squares + static_cast<T>(dims.eps);
    const T inverse = 1 / total[r];
    store(n, y + r * n, Accumulate::overwrite, [=](int64_t c) { return row[c] * row[c] * inverse; });
  }
}

template <typename T>
void energy_share_backward(const EnergyShareDims& dims, const T* x, const Master<T>* total, const T* dy, T* dx, Accumulate mode) {
  const int64_t n = dims.cols;
#pragma omp parallel for schedule(static) if (dims.rows * n > 16384)
  for (int64_t r = 0; r < dims.rows; ++r) {
    const T *row = x + r * n, *d = dy + r * n;
    T dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t c = 0; c < n; ++c) dot += d[c] * row[c] * row[c];
    const T inverse = 1 / total[r], mean = dot * inverse;
    store(n, dx + r * n, mode, [=](int64_t c) { return 2 * row[c] * (d[c] - mean) * inverse; });
  }
}

template void energy_share_forward(const EnergyShareDims&, const float*, float*, float*);
template void energy_share_forward(const EnergyShareDims&, const double*, double*, double*);
template void energy_share_backward(const EnergyShareDims&, const float*, const float*, const float*, float*, Accumulate);
template void energy_share_backward(const EnergyShareDims&, const double*, const double*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
