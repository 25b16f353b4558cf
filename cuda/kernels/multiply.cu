// The elementwise product on the GPU: one pass over flat memory. Contract: ops/kernels/multiply.h.
#include "ops/kernels/multiply.h"

#include "cuda/device/elementwise.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Multiply {
  const T *a, *b;
  T* y;
  Accumulate mode;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto left = load<V>(a + i), right = load<V>(b + i);
    Pack<T, V> out{};
    if (mode == Accumulate::add) out = load<V>(y + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float v = widen(left.v[k]) * widen(right.v[k]);
      out.v[k] = narrow<T>(mode == Accumulate::add ? widen(out.v[k]) + v : v);
    }
    store(y + i, out);
  }
};

}  // namespace

template <typename T>
void multiply(const Stream& stream, int64_t n, const T* a, const T* b, T* y, Accumulate mode) {
  elementwise<T>(stream, n, Multiply<T>{a, b, y, mode}, "multiply", a, b, y);
}

template void multiply(const Stream&, int64_t, const float*, const float*, float*, Accumulate);
template void multiply(const Stream&, int64_t, const bf16*, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
