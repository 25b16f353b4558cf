// Product with a constant on the GPU: one pass over flat memory. Contract: ops/kernels/scale.h.
#include "ops/kernels/scale.h"

#include "cuda/device/elementwise.cuh"

namespace ermoe::cuda {
namespace {

template <typename T, Accumulate Mode>
struct Scale {
  float factor;
  const T* x;
  T* y;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = load<V>(x + i);
    Pack<T, V> out;
    if constexpr (Mode == Accumulate::add) out = load<V>(y + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float v = factor * widen(in.v[k]);
      out.v[k] = narrow<T>(Mode == Accumulate::add ? widen(out.v[k]) + v : v);
    }
    store(y + i, out);
  }
};

}  // namespace

template <typename T>
void scale(const Stream& stream, const ScaleDims& dims, const T* x, T* y, Accumulate mode) {
  const auto factor = static_cast<float>(dims.factor);
  if (mode == Accumulate::add)
    elementwise<T>(stream, dims.numel, Scale<T, Accumulate::add>{factor, x, y}, "scale", x, y);
  else
    elementwise<T>(stream, dims.numel, Scale<T, Accumulate::overwrite>{factor, x, y}, "scale", x, y);
}

template void scale(const Stream&, const ScaleDims&, const float*, float*, Accumulate);
template void scale(const Stream&, const ScaleDims&, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
