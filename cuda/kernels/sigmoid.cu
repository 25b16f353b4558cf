// The logistic function on the GPU: one pass over flat memory. Contract: ops/kernels/sigmoid.h.
#include "ops/kernels/sigmoid.h"

#include "cuda/device/elementwise.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Forward {
  const T* x;
  T* y;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = load<V>(x + i);
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(1.0f / (1.0f + expf(-widen(in.v[k]))));
    store(y + i, out);
  }
};

template <typename T, Accumulate Mode>
struct Backward {
  const T *y, *dy;
  T* dx;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto own = load<V>(y + i), upper = load<V>(dy + i);
    Pack<T, V> out;
    if constexpr (Mode == Accumulate::add) out = load<V>(dx + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float v = widen(own.v[k]), d = widen(upper.v[k]) * v * (1.0f - v);
      out.v[k] = narrow<T>(Mode == Accumulate::add ? widen(out.v[k]) + d : d);
    }
    store(dx + i, out);
  }
};

}  // namespace

template <typename T>
void sigmoid_forward(const Stream& stream, const SigmoidDims& dims, const T* x, T* y) {
  elementwise<T>(stream, dims.numel, Forward<T>{x, y}, "sigmoid_forward", x, y);
}

template <typename T>
void sigmoid_backward(const Stream& stream, const SigmoidDims& dims, const T* y, const T* dy, T* dx, Accumulate mode) {
  if (mode == Accumulate::add)
    elementwise<T>(stream, dims.numel, Backward<T, Accumulate::add>{y, dy, dx}, "sigmoid_backward", y, dy, dx);
  else
    elementwise<T>(stream, dims.numel, Backward<T, Accumulate::overwrite>{y, dy, dx}, "sigmoid_backward", y, dy, dx);
}

template void sigmoid_forward(const Stream&, const SigmoidDims&, const float*, float*);
template void sigmoid_forward(const Stream&, const SigmoidDims&, const bf16*, bf16*);
template void sigmoid_backward(const Stream&, const SigmoidDims&, const float*, const float*, float*, Accumulate);
template void sigmoid_backward(const Stream&, const SigmoidDims&, const bf16*, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
