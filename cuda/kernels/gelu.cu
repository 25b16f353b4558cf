// GELU on the GPU: one pass over flat memory, bound by its bandwidth. Contract: ops/kernels/gelu.h.
#include "ops/kernels/gelu.h"

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
    for (int k = 0; k < V; ++k) {
      const float v = widen(in.v[k]);
      out.v[k] = narrow<T>(v * normcdff(v));
    }
    store(y + i, out);
  }
};

template <typename T, Accumulate Mode>
struct Backward {
  const T *x, *dy;
  T* dx;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = load<V>(x + i), upper = load<V>(dy + i);
    Pack<T, V> out;
    if constexpr (Mode == Accumulate::add) out = load<V>(dx + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float v = widen(in.v[k]), density = 0.39894228040143267794f * expf(-0.5f * v * v);
      const float slope = widen(upper.v[k]) * (normcdff(v) + v * density);
      out.v[k] = narrow<T>(Mode == Accumulate::add ? widen(out.v[k]) + slope : slope);
    }
    store(dx + i, out);
  }
};

}  // namespace

template <typename T>
void gelu_forward(const Stream& stream, const GeluDims& dims, const T* x, T* y) {
  elementwise<T>(stream, dims.numel, Forward<T>{x, y}, "gelu_forward", x, y);
}

template <typename T>
void gelu_backward(const Stream& stream, const GeluDims& dims, const T* x, const T* dy, T* dx, Accumulate mode) {
  if (mode == Accumulate::add)
    elementwise<T>(stream, dims.numel, Backward<T, Accumulate::add>{x, dy, dx}, "gelu_backward", x, dy, dx);
  else
    elementwise<T>(stream, dims.numel, Backward<T, Accumulate::overwrite>{x, dy, dx}, "gelu_backward", x, dy, dx);
}

template void gelu_forward(const Stream&, const GeluDims&, const float*, float*);
template void gelu_forward(const Stream&, const GeluDims&, const bf16*, bf16*);
template void gelu_backward(const Stream&, const GeluDims&, const float*, const float*, float*, Accumulate);
template void gelu_backward(const Stream&, const GeluDims&, const bf16*, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
