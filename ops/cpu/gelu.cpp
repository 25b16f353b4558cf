// GELU on the CPU: single passes over flat memory, bound by its bandwidth once exp is vectorised.
#include "ops/kernels/gelu.h"
#include "ops/cpu/vector_math.h"

namespace ermoe::cpu {

template <typename T>
void gelu_forward(const GeluDims& dims, const T* x, T* y) {
#pragma omp parallel for simd if (dims.numel > 4096) schedule(static)
  for (int64_t i = 0; i < dims.numel; ++i) y[i] = x[i] * normal_at(x[i]).cdf;
}

template <typename T>
void gelu_backward(const GeluDims& dims, const T* x, const T* dy, T* dx, Accumulate mode) {
  const auto slope = [](T v) { return gelu_slope(v, normal_at(v)); };
  if (mode == Accumulate::overwrite) {  // the old content may be a NaN: it must not be read
#pragma omp parallel for simd if (dims.numel > 4096) schedule(static)
    for (int64_t i = 0; i < dims.numel; ++i) dx[i] = dy[i] * slope(x[i]);
    return;
  }
#pragma omp parallel for simd if (dims.numel > 4096) schedule(static)
  for (int64_t i = 0; i < dims.numel; ++i) dx[i] += dy[i] * slope(x[i]);
}

template <typename T>
void gelu_backward_with_y(const GeluDims& dims, T* x, T* dy) {
#pragma omp parallel for simd if (dims.numel > 4096) schedule(static)
  for (int64_t i = 0; i < dims.numel; ++i) {
    const T v = x[i];
    const Normal<T> normal = normal_at(v);
    x[i] = dy[i] * gelu_slope(v, normal);
    dy[i] = v * normal.cdf;
  }
}

template void gelu_forward(const GeluDims&, const float*, float*);
template void gelu_forward(const GeluDims&, const double*, double*);
template void gelu_backward(const GeluDims&, const float*, const float*, float*, Accumulate);
template void gelu_backward(const GeluDims&, const double*, const double*, double*, Accumulate);
template void gelu_backward_with_y(const GeluDims&, float*, float*);
template void gelu_backward_with_y(const GeluDims&, double*, double*);

}  // namespace ermoe::cpu
