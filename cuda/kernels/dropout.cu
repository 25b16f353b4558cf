// Random omission on the GPU: bound by memory where whole units are dropped, near it where each element draws (philox is about
// a hundred instructions for four elements). Words are those of the CPU. Contract: ops/kernels/dropout.h.
#include "ops/kernels/dropout.h"

#include "cuda/device/elementwise.cuh"

namespace ermoe::cuda {
namespace {

/// A dropped element is zero even where x is not finite.
template <typename T, int V>
__device__ __forceinline__ void write(const Pack<T, V>& x, const float (&factor)[V], T* y, Accumulate mode) {
  Pack<T, V> out;
  if (mode == Accumulate::add) out = load<V>(y);
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const float v = factor[k] == 0 ? 0.0f : widen(x.v[k]) * factor[k];
    out.v[k] = narrow<T>(mode == Accumulate::add ? widen(out.v[k]) + v : v);
  }
  store(y, out);
}

/// Each element is a unit.
template <typename T>
struct Elements {
  DrawKey drawn;
  int64_t first;
  float p, kept;
  const T* x;
  T* y;
  Accumulate mode;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = load<V>(x + i);
    const RngKey key = drawn.resolve();
    const int64_t number = first + i;
    float factor[V];
    if (V == 1 || number % 4 != 0) {
#pragma unroll
      for (int k = 0; k < V; ++k)
        factor[k] = dropout_keeps(philox(key, static_cast<uint64_t>((number + k) / 4)).x[(number + k) % 4], p) ? kept : 0.0f;
    } else {
#pragma unroll
      for (int k = 0; k + 4 <= V; k += 4) {
        const Random4 r = philox(key, static_cast<uint64_t>((number + k) / 4));
#pragma unroll
        for (int j = 0; j < 4; ++j) factor[k + j] = dropout_keeps(r.x[j], p) ? kept : 0.0f;
      }
    }
    write<T, V>(in, factor, y + i, mode);
  }
};

/// Blocks (unit, part): x of a dropped unit is not even read.
template <typename T, int V>
__global__ void __launch_bounds__(elementwise_threads) units_kernel(DropoutDims dims, const T* x, T* y, Accumulate mode) {
  const int64_t unit = blockIdx.x, packs = dims.unit / V;
  const float kept = static_cast<float>(1 / (1 - dims.p));
  const int64_t number = dims.first + unit;
  const bool keep = dropout_keeps(philox(dims.key.resolve(), static_cast<uint64_t>(number / 4)).x[number % 4], static_cast<float>(dims.p));
  if (!keep && mode == Accumulate::add) return;
  float factor[V];
#pragma unroll
  for (int k = 0; k < V; ++k) factor[k] = keep ? kept : 0.0f;
  x += unit * dims.unit;
  y += unit * dims.unit;
  const int64_t step = static_cast<int64_t>(gridDim.y) * elementwise_threads;
  for (int64_t i = static_cast<int64_t>(blockIdx.y) * elementwise_threads + threadIdx.x; i < packs; i += step) {
    Pack<T, V> in{};
    if (keep) in = load<V>(x + i * V);
    write<T, V>(in, factor, y + i * V, mode);
  }
}

}  // namespace

template <typename T>
void dropout(const Stream& stream, const DropoutDims& dims, const T* x, T* y, Accumulate mode) {
  if (dims.units == 0 || dims.unit == 0) return;
  if (dims.unit == 1) {
    const Elements<T> work{dims.key, dims.first, static_cast<float>(dims.p), static_cast<float>(1 / (1 - dims.p)), x, y, mode};
    return elementwise<T>(stream, dims.units, work, "dropout", x, y);
  }
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    constexpr int64_t packs_a_thread = 4;
    const int64_t parts = (dims.unit / V + packs_a_thread * elementwise_threads - 1) / (packs_a_thread * elementwise_threads);
    const dim3 grid(static_cast<unsigned>(dims.units), static_cast<unsigned>(std::min<int64_t>(parts, 65535)));
    units_kernel<T, V><<<grid, elementwise_threads, 0, native(stream)>>>(dims, x, y, mode);
    cuda_check(cudaGetLastError(), "dropout");
  };
  if (dims.unit % pack_width<T> == 0 && all_aligned(x, y))
    launch(std::integral_constant<int, pack_width<T>>{});
  else
    launch(std::integral_constant<int, 1>{});
}

template void dropout(const Stream&, const DropoutDims&, const float*, float*, Accumulate);
template void dropout(const Stream&, const DropoutDims&, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
