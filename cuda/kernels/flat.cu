// Fill and convert on the GPU: one pass over flat memory each. Contract: core/kernels/flat.h.
#include "core/kernels/flat.h"

#include "cuda/device/elementwise.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Fill {
  T value;
  T* x;
  template <int V>
  __device__ void run(int64_t i) const {
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = value;
    store(x + i, out);
  }
};

template <typename From, typename To, Accumulate Mode>
struct Convert {
  const From* from;
  To* to;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = load<V>(from + i);
    Pack<To, V> out;
    if constexpr (Mode == Accumulate::add) out = load<V>(to + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float v = static_cast<float>(in.v[k]);
      out.v[k] = static_cast<To>(Mode == Accumulate::add ? static_cast<float>(out.v[k]) + v : v);
    }
    store(to + i, out);
  }
};

}  // namespace

template <typename T>
void fill(const Stream& stream, int64_t numel, double value, T* x) {
  elementwise<T>(stream, numel, Fill<T>{static_cast<T>(static_cast<float>(value)), x}, "fill", x);
}

template <typename From, typename To>
void convert(const Stream& stream, int64_t numel, const From* from, To* to, Accumulate mode) {
  using Wide = std::conditional_t<(sizeof(From) > sizeof(To)), From, To>;
  if (mode == Accumulate::add)
    elementwise<Wide>(stream, numel, Convert<From, To, Accumulate::add>{from, to}, "convert", from, to);
  else
    elementwise<Wide>(stream, numel, Convert<From, To, Accumulate::overwrite>{from, to}, "convert", from, to);
}

template void fill(const Stream&, int64_t, double, float*);
template void fill(const Stream&, int64_t, double, bf16*);
template void convert(const Stream&, int64_t, const float*, float*, Accumulate);
template void convert(const Stream&, int64_t, const float*, bf16*, Accumulate);
template void convert(const Stream&, int64_t, const bf16*, float*, Accumulate);
template void convert(const Stream&, int64_t, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
