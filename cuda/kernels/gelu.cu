// GELU on the GPU: one pass over memory, bound by its bandwidth. On its way back it may make its output again, and leave the
// column sums of the gradient, which is the bias gradient of the layer before it. Contract: ops/kernels/gelu.h.
#include "ops/kernels/gelu.h"

#include "cuda/device/chunk_sums.cuh"
#include "cuda/device/elementwise.cuh"
#include "cuda/device/gelu.cuh"
#include "cuda/device/sum_partials.cuh"

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
    for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(gelu_value<T>(widen(in.v[k])));
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
      const float d = widen(upper.v[k]) * gelu_slope<T>(widen(in.v[k]));
      out.v[k] = narrow<T>(Mode == Accumulate::add ? widen(out.v[k]) + d : d);
    }
    store(dx + i, out);
  }
};

/// dx where x was and y where dy was, alone or as a source of sums.
template <typename T>
struct BackwardWithY {
  T *x, *dy;
  template <int V>
  struct Inputs {
    Pack<T, V> x, dy;
  };
  template <int V>
  __device__ Inputs<V> fetch(int64_t at) const {
    return {load<V>(x + at), load<V>(dy + at)};
  }
  template <int V>
  __device__ Pack<T, V> finish(int64_t at, const Inputs<V>& in) const {
    Pack<T, V> dx, y;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float v = widen(in.x.v[k]);
      dx.v[k] = narrow<T>(widen(in.dy.v[k]) * gelu_slope<T>(v));
      y.v[k] = narrow<T>(gelu_value<T>(v));
    }
    store(x + at, dx);
    store(dy + at, y);
    return dx;
  }
  template <int V>
  __device__ void run(int64_t i) const {
    finish<V>(i, fetch<V>(i));
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

template <typename T>
void gelu_backward_with_y(const Stream& stream, const GeluDims& dims, T* x, T* dy) {
  elementwise<T>(stream, dims.numel, BackwardWithY<T>{x, dy}, "gelu_backward_with_y", x, dy);
}

template <typename T>
void gelu_backward_with_y_and_sums(const Stream& stream, const ColumnSumDims& dims, T* x, T* dy, Master<T>* partials,
                                   Destination<Master<T>> sums) {
  constexpr const char* name = "gelu_backward_with_y_and_sums";
  if (dims.cols == 0) return;
  if (dims.rows > 0) chunk_sums<T>(stream, dims, BackwardWithY<T>{x, dy}, partials, name, x, dy);
  sum_partials<1>(stream, {.chunks = dims.chunks().count(), .cols = dims.cols, .partials = partials, .sums = {sums}}, name);
}

template void gelu_forward(const Stream&, const GeluDims&, const float*, float*);
template void gelu_forward(const Stream&, const GeluDims&, const bf16*, bf16*);
template void gelu_backward(const Stream&, const GeluDims&, const float*, const float*, float*, Accumulate);
template void gelu_backward(const Stream&, const GeluDims&, const bf16*, const bf16*, bf16*, Accumulate);
template void gelu_backward_with_y(const Stream&, const GeluDims&, float*, float*);
template void gelu_backward_with_y(const Stream&, const GeluDims&, bf16*, bf16*);
template void gelu_backward_with_y_and_sums(const Stream&, const ColumnSumDims&, float*, float*, float*, Destination<float>);
template void gelu_backward_with_y_and_sums(const Stream&, const ColumnSumDims&, bf16*, bf16*, float*, Destination<float>);

}  // namespace ermoe::cuda
