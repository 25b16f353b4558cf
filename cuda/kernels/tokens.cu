// Joining and pooling tokens on the GPU: copies bound by memory, and sums over the tokens of a sequence in which the warps of
// a block share the tokens and a lane keeps its columns. Contract: ops/kernels/tokens.h.
#include "ops/kernels/tokens.h"

#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"
#include "cuda/device/reduce.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct ConcatForward {
  ConcatDims dims;
  const T *prefix, *x;
  T* y;
  template <int V>
  __device__ void run(int64_t i) const {
    if (V > 1 && (dims.prefix % V != 0 || dims.rest % V != 0)) return one_by_one<V>(*this, i);
    const auto [b, at] = divide(i, dims.prefix + dims.rest);
    store(y + i, load<V>(at < dims.prefix ? prefix + at : x + b * dims.rest + (at - dims.prefix)));
  }
};

template <typename T>
struct ConcatBackward {
  ConcatDims dims;
  const T* dy;
  T* dx;
  Accumulate mode;
  template <int V>
  __device__ void run(int64_t i) const {
    if (V > 1 && (dims.prefix % V != 0 || dims.rest % V != 0)) return one_by_one<V>(*this, i);
    const auto [b, at] = divide(i, dims.rest);
    auto out = load<V>(dy + b * (dims.prefix + dims.rest) + dims.prefix + at);
    if (mode == Accumulate::add) {
      const auto old = load<V>(dx + i);
#pragma unroll
      for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(widen(old.v[k]) + widen(out.v[k]));
    }
    store(dx + i, out);
  }
};

template <typename T>
struct SkipBackward {
  ConcatDims dims;
  const T* dy;
  T* dx;
  Accumulate mode;
  template <int V>
  __device__ void run(int64_t i) const {
    if (V > 1 && (dims.prefix % V != 0 || dims.rest % V != 0)) return one_by_one<V>(*this, i);
    const auto [b, at] = divide(i, dims.prefix + dims.rest);
    const bool kept = at >= dims.prefix;
    if (!kept && mode == Accumulate::add) return;
    Pack<T, V> out{};
    if (kept) out = load<V>(dy + b * dims.rest + (at - dims.prefix));
    if (mode == Accumulate::add) {
      const auto old = load<V>(dx + i);
#pragma unroll
      for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(widen(old.v[k]) + widen(out.v[k]));
    }
    store(dx + i, out);
  }
};

constexpr int warps = 8;

/// Blocks (sequence, columns).
template <typename T, int V>
__global__ void __launch_bounds__(warps* warp_size) pool_forward_kernel(PoolDims dims, const T* x, T* y) {
  __shared__ float parts[warps][warp_size * V];
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const int64_t b = blockIdx.x, column = (static_cast<int64_t>(blockIdx.y) * warp_size + lane) * V;
  const bool inside = column < dims.width;
  float sum[V] = {};
  if (inside) {
#pragma unroll 4
    for (int64_t t = dims.begin + warp; t < dims.end; t += warps) {
      const auto token = load<V>(x + (b * dims.tokens + t) * dims.width + column);
#pragma unroll
      for (int k = 0; k < V; ++k) sum[k] += widen(token.v[k]);
    }
  }
#pragma unroll
  for (int k = 0; k < V; ++k) parts[warp][k * warp_size + lane] = sum[k];
  __syncthreads();
  if (warp != 0 || !inside) return;
  const float weight = 1.0f / static_cast<float>(dims.end - dims.begin);
  Pack<T, V> out;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < warps; ++w) total += parts[w][k * warp_size + lane];
    out.v[k] = narrow<T>(total * weight);
  }
  store(y + b * dims.width + column, out);
}

template <typename T>
struct PoolBackward {
  PoolDims dims;
  float weight;
  const T* dy;
  T* dx;
  Accumulate mode;
  template <int V>
  __device__ void run(int64_t i) const {
    if (V > 1 && dims.width % V != 0) return one_by_one<V>(*this, i);
    const auto [row, column] = divide(i, dims.width);
    const auto [b, t] = divide(row, dims.tokens);
    const bool averaged = t >= dims.begin && t < dims.end;
    if (!averaged && mode == Accumulate::add) return;
    Pack<T, V> upper{}, out;
    if (averaged) upper = load<V>(dy + b * dims.width + column);
    if (mode == Accumulate::add) out = load<V>(dx + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float v = widen(upper.v[k]) * weight;
      out.v[k] = narrow<T>(mode == Accumulate::add ? widen(out.v[k]) + v : v);
    }
    store(dx + i, out);
  }
};

}  // namespace

template <typename T>
void concat_tokens_forward(const Stream& stream, const ConcatDims& dims, const T* prefix, const T* x, T* y) {
  const ConcatForward<T> work{dims, prefix, x, y};
  elementwise<T>(stream, dims.batch * (dims.prefix + dims.rest), work, "concat_tokens_forward", prefix, x, y);
}

template <typename T>
void concat_tokens_backward(const Stream& stream, const ConcatDims& dims, const T* dy, T* dx, Accumulate mode) {
  elementwise<T>(stream, dims.batch * dims.rest, ConcatBackward<T>{dims, dy, dx, mode}, "concat_tokens_backward", dy, dx);
}

template <typename T>
void skip_tokens_backward(const Stream& stream, const ConcatDims& dims, const T* dy, T* dx, Accumulate mode) {
  const SkipBackward<T> work{dims, dy, dx, mode};
  elementwise<T>(stream, dims.batch * (dims.prefix + dims.rest), work, "skip_tokens_backward", dy, dx);
}

template <typename T>
void pool_tokens_forward(const Stream& stream, const PoolDims& dims, const T* x, T* y) {
  if (dims.batch == 0 || dims.width == 0) return;
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    constexpr int64_t block = int64_t{warp_size} * V;
    const dim3 grid(static_cast<unsigned>(dims.batch), static_cast<unsigned>((dims.width + block - 1) / block));
    pool_forward_kernel<T, V><<<grid, warps * warp_size, 0, native(stream)>>>(dims, x, y);
    cuda_check(cudaGetLastError(), "pool_tokens_forward");
  };
  if (dims.width % pack_width<T> == 0 && all_aligned(x, y))
    launch(std::integral_constant<int, pack_width<T>>{});
  else
    launch(std::integral_constant<int, 1>{});
}

template <typename T>
void pool_tokens_backward(const Stream& stream, const PoolDims& dims, const T* dy, T* dx, Accumulate mode) {
  const PoolBackward<T> work{dims, 1.0f / static_cast<float>(dims.end - dims.begin), dy, dx, mode};
  elementwise<T>(stream, dims.batch * dims.tokens * dims.width, work, "pool_tokens_backward", dy, dx);
}

#define ERMOE_INSTANTIATE(T)                                                                        \
  template void concat_tokens_forward(const Stream&, const ConcatDims&, const T*, const T*, T*);    \
  template void concat_tokens_backward(const Stream&, const ConcatDims&, const T*, T*, Accumulate); \
  template void skip_tokens_backward(const Stream&, const ConcatDims&, const T*, T*, Accumulate);   \
  template void pool_tokens_forward(const Stream&, const PoolDims&, const T*, T*);                  \
  template void pool_tokens_backward(const Stream&, const PoolDims&, const T*, T*, Accumulate);
ERMOE_INSTANTIATE(float)
ERMOE_INSTANTIATE(bf16)
#undef ERMOE_INSTANTIATE

}  // namespace ermoe::cuda
