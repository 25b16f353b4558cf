// Bounds on values on the GPU: one pass over flat memory. Contract: ops/kernels/clamp_values.h.
#include "ops/kernels/clamp_values.h"

#include "cuda/device/elementwise.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Clamp {
  float low, high;
  T* t;
  template <int V>
  __device__ void run(int64_t i) const {
    auto values = load<V>(t + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float v = widen(values.v[k]);
      if (v < low) values.v[k] = narrow<T>(low);
      if (v > high) values.v[k] = narrow<T>(high);
    }
    store(t + i, values);
  }
};

}  // namespace

template <typename T>
void clamp_values(const Stream& stream, const ClampDims& dims, T* t) {
  elementwise<T>(stream, dims.numel, Clamp<T>{static_cast<float>(dims.low), static_cast<float>(dims.high), t}, "clamp_values", t);
}

template void clamp_values(const Stream&, const ClampDims&, float*);
template void clamp_values(const Stream&, const ClampDims&, bf16*);

}  // namespace ermoe::cuda
