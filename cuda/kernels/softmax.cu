// Softmax over rows on the GPU, bound by memory: a row is read from there once, again from the cache. Sums in float.
// Contract: ops/kernels/softmax.h.
#include "ops/kernels/softmax.h"

#include "cuda/device/row_group.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Forward {
  int64_t cols;
  const T* x;
  T* y;
  template <int V, int Lanes>
  __device__ void run(int64_t row, bool valid) const {
    const int64_t end = valid ? cols : 0, at = row * cols;
    float largest = -INFINITY, sum = 0;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto in = load<V>(x + at + c);
#pragma unroll
      for (int k = 0; k < V; ++k) largest = fmaxf(largest, widen(in.v[k]));
    }
    largest = group_max<Lanes>(largest);
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto in = load<V>(x + at + c);
#pragma unroll
      for (int k = 0; k < V; ++k) sum += expf(widen(in.v[k]) - largest);
    }
    const float inverse = 1 / group_sum<Lanes>(sum);
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto in = load<V>(x + at + c);
      Pack<T, V> out;
#pragma unroll
      for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(expf(widen(in.v[k]) - largest) * inverse);
      store(y + at + c, out);
    }
  }
};

template <typename T>
struct Backward {
  int64_t cols;
  const T *y, *dy;
  T* dx;
  Accumulate mode;
  template <int V, int Lanes>
  __device__ void run(int64_t row, bool valid) const {
    const int64_t end = valid ? cols : 0, at = row * cols;
    float dot = 0;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto p = load<V>(y + at + c), d = load<V>(dy + at + c);
#pragma unroll
      for (int k = 0; k < V; ++k) dot += widen(p.v[k]) * widen(d.v[k]);
    }
    dot = group_sum<Lanes>(dot);
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto p = load<V>(y + at + c), d = load<V>(dy + at + c);
      float out[V];
#pragma unroll
      for (int k = 0; k < V; ++k) out[k] = widen(p.v[k]) * (widen(d.v[k]) - dot);
      write(dx + at + c, out, mode);
    }
  }
};

}  // namespace

template <typename T>
void softmax_forward(const Stream& stream, const SoftmaxDims& dims, const T* x, T* y) {
  by_rows<T>(stream, dims.rows, dims.cols, Forward<T>{dims.cols, x, y}, "softmax_forward", x, y);
}

template <typename T>
void softmax_backward(const Stream& stream, const SoftmaxDims& dims, const T* y, const T* dy, T* dx, Accumulate mode) {
  by_rows<T>(stream, dims.rows, dims.cols, Backward<T>{dims.cols, y, dy, dx, mode}, "softmax_backward", y, dy, dx);
}

template void softmax_forward(const Stream&, const SoftmaxDims&, const float*, float*);
template void softmax_forward(const Stream&, const SoftmaxDims&, const bf16*, bf16*);
template void softmax_backward(const Stream&, const SoftmaxDims&, const float*, const float*, float*, Accumulate);
template void softmax_backward(const Stream&, const SoftmaxDims&, const bf16*, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
