// Row normalisation on the GPU, bound by memory: a row is read from there once, again from the cache. Sums in float.
// Contract: ops/kernels/l2_normalize.h.
#include "ops/kernels/l2_normalize.h"

#include "cuda/device/row_group.cuh"

namespace ermoe::cuda {
namespace {

/// A NaN is no smaller than the floor: it shows.
__device__ __forceinline__ float floored(float norm, float eps) { return norm < eps ? eps : norm; }

template <typename T>
struct Forward {
  int64_t cols;
  float eps;
  const T* x;
  T* y;
  float* norm;
  template <int V, int Lanes>
  __device__ void run(int64_t row, bool valid) const {
    const int64_t end = valid ? cols : 0, at = row * cols;
    float squares = 0;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto in = load<V>(x + at + c);
#pragma unroll
      for (int k = 0; k < V; ++k) squares += widen(in.v[k]) * widen(in.v[k]);
    }
    const float length = sqrtf(group_sum<Lanes>(squares)), inverse = 1 / floored(length, eps);
    if (valid && threadIdx.x % Lanes == 0) norm[row] = length;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto in = load<V>(x + at + c);
      Pack<T, V> out;
#pragma unroll
      for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(widen(in.v[k]) * inverse);
      store(y + at + c, out);
    }
  }
};

template <typename T>
struct Backward {
  int64_t cols;
  float eps;
  const T* y;
  const float* norm;
  const T* dy;
  T* dx;
  Accumulate mode;
  template <int V, int Lanes>
  __device__ void run(int64_t row, bool valid) const {
    const int64_t end = valid ? cols : 0, at = row * cols;
    float dot = 0;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto unit = load<V>(y + at + c), d = load<V>(dy + at + c);
#pragma unroll
      for (int k = 0; k < V; ++k) dot += widen(unit.v[k]) * widen(d.v[k]);
    }
    dot = group_sum<Lanes>(dot);
    if (!valid) return;
    const float length = norm[row], inverse = 1 / floored(length, eps);
    if (length < eps) dot = 0;  // divided by a constant: no projection
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto unit = load<V>(y + at + c), d = load<V>(dy + at + c);
      float out[V];
#pragma unroll
      for (int k = 0; k < V; ++k) out[k] = (widen(d.v[k]) - widen(unit.v[k]) * dot) * inverse;
      write(dx + at + c, out, mode);
    }
  }
};

}  // namespace

template <typename T>
void l2_normalize_forward(const Stream& stream, const L2NormalizeDims& dims, const T* x, T* y, Master<T>* norm) {
  const Forward<T> work{dims.cols, static_cast<float>(dims.eps), x, y, norm};
  by_rows<T>(stream, dims.rows, dims.cols, work, "l2_normalize_forward", x, y);
}

template <typename T>
void l2_normalize_backward(const Stream& stream, const L2NormalizeDims& dims, const T* y, const Master<T>* norm, const T* dy, T* dx,
                           Accumulate mode) {
  const Backward<T> work{dims.cols, static_cast<float>(dims.eps), y, norm, dy, dx, mode};
  by_rows<T>(stream, dims.rows, dims.cols, work, "l2_normalize_backward", y, dy, dx);
}

template void l2_normalize_forward(const Stream&, const L2NormalizeDims&, const float*, float*, float*);
template void l2_normalize_forward(const Stream&, const L2NormalizeDims&, const bf16*, bf16*, float*);
template void l2_normalize_backward(const Stream&, const L2NormalizeDims&, const float*, const float*, const float*, float*, Accumulate);
template void l2_normalize_backward(const Stream&, const L2NormalizeDims&, const bf16*, const float*, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
