// An upper bound on the GPU: one pass over flat memory. Contract: ops/kernels/at_most.h.
#include "ops/kernels/at_most.h"

#include "cuda/device/elementwise.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Forward {
  float bound;
  const T* x;
  T* y;
  template <int V>
  __device__ void run(int64_t i) const {
    auto values = load<V>(x + i);
#pragma unroll
    for (int k = 0; k < V; ++k)
      if (widen(values.v[k]) >= bound) values.v[k] = narrow<T>(bound);
    store(y + i, values);
  }
};

template <typename T, Accumulate Mode>
struct Backward {
  float bound;
  const T *x, *dy;
  T* dx;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = load<V>(x + i), upper = load<V>(dy + i);
    Pack<T, V> out;
    if constexpr (Mode == Accumulate::add) out = load<V>(dx + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float d = widen(in.v[k]) >= bound ? 0.0f : widen(upper.v[k]);
      out.v[k] = narrow<T>(Mode == Accumulate::add ? widen(out.v[k]) + d : d);
    }
    store(dx + i, out);
  }
};

}  // namespace

template <typename T>
void at_most_forward(const Stream& stream, const AtMostDims& dims, const T* x, T* y) {
  elementwise<T>(stream, dims.numel, Forward<T>{static_cast<float>(dims.bound), x, y}, "at_most_forward", x, y);
}

template <typename T>
void at_most_backward(const Stream& stream, const AtMostDims& dims, const T* x, const T* dy, T* dx, Accumulate mode) {
  const auto bound = static_cast<float>(dims.bound);
  if (mode == Accumulate::add)
    elementwise<T>(stream, dims.numel, Backward<T, Accumulate::add>{bound, x, dy, dx}, "at_most_backward", x, dy, dx);
  else
    elementwise<T>(stream, dims.numel, Backward<T, Accumulate::overwrite>{bound, x, dy, dx}, "at_most_backward", x, dy, dx);
}

template void at_most_forward(const Stream&, const AtMostDims&, const float*, float*);
template void at_most_forward(const Stream&, const AtMostDims&, const bf16*, bf16*);
template void at_most_backward(const Stream&, const AtMostDims&, const float*, const float*, float*, Accumulate);
template void at_most_backward(const Stream&, const AtMostDims&, const bf16*, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
