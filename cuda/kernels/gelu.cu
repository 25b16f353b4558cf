// GELU on the GPU: one pass over flat memory, bound by its bandwidth. Each thread takes one pack of 16 bytes; the elements
// that fill no pack go to the first threads, one each. Contract: ops/kernels/gelu.h.
#include "ops/kernels/gelu.h"

#include "cuda/device/pack.cuh"
#include "cuda/runtime/check.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

template <typename T>
struct Forward {
  const T* x;
  T* y;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = *reinterpret_cast<const Pack<T, V>*>(x + i);
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = in.v[k] * normcdf(in.v[k]);
    *reinterpret_cast<Pack<T, V>*>(y + i) = out;
  }
};

template <typename T, Accumulate Mode>
struct Backward {
  const T *x, *dy;
  T* dx;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = *reinterpret_cast<const Pack<T, V>*>(x + i), upper = *reinterpret_cast<const Pack<T, V>*>(dy + i);
    Pack<T, V> out;
    if constexpr (Mode == Accumulate::add) out = *reinterpret_cast<const Pack<T, V>*>(dx + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const T v = in.v[k], density = T(0.39894228040143267794) * exp(T(-0.5) * v * v);
      const T slope = upper.v[k] * (normcdf(v) + v * density);
      out.v[k] = Mode == Accumulate::add ? out.v[k] + slope : slope;
    }
    *reinterpret_cast<Pack<T, V>*>(dx + i) = out;
  }
};

template <int V, typename Work>
__global__ void __launch_bounds__(threads) elementwise(int64_t numel, Work work) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x, packs = numel / V;
  if (thread < packs) work.template run<V>(thread * V);
  if (const int64_t rest = packs * V + thread; rest < numel) work.template run<1>(rest);
}

template <int V, typename Work>
void launch(const Stream& stream, int64_t numel, const Work& work, const char* name) {
  if (numel == 0) return;
  const int64_t wanted = std::max<int64_t>(numel / V, numel % V), blocks = (wanted + threads - 1) / threads;
  elementwise<V><<<static_cast<unsigned>(blocks), threads, 0, static_cast<cudaStream_t>(stream.handle)>>>(numel, work);
  cuda_check(cudaGetLastError(), name);
}

}  // namespace

template <typename T>
void gelu_forward(const Stream& stream, const GeluDims& dims, const T* x, T* y) {
  const Forward<T> work{x, y};
  if (all_aligned(x, y)) return launch<pack_width<T>>(stream, dims.numel, work, "gelu_forward");
  launch<1>(stream, dims.numel, work, "gelu_forward");
}

template <typename T>
void gelu_backward(const Stream& stream, const GeluDims& dims, const T* x, const T* dy, T* dx, Accumulate mode) {
  const auto run = [&](const auto& work) {
    if (all_aligned(x, dy, dx)) return launch<pack_width<T>>(stream, dims.numel, work, "gelu_backward");
    launch<1>(stream, dims.numel, work, "gelu_backward");
  };
  if (mode == Accumulate::add) return run(Backward<T, Accumulate::add>{x, dy, dx});
  run(Backward<T, Accumulate::overwrite>{x, dy, dx});
}

template void gelu_forward(const Stream&, const GeluDims&, const float*, float*);
template void gelu_forward(const Stream&, const GeluDims&, const double*, double*);
template void gelu_backward(const Stream&, const GeluDims&, const float*, const float*, float*, Accumulate);
template void gelu_backward(const Stream&, const GeluDims&, const double*, const double*, double*, Accumulate);

}  // namespace ermoe::cuda
