// One token of each sequence on the GPU: copies of rows; on the way back one pass over all tokens, or over the chosen ones where
// others have gradients already. Contract: ops/kernels/select_tokens.h.
#include "ops/kernels/select_tokens.h"

#include "core/bf16.h"
#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Forward {
  SelectTokensDims dims;
  const T* x;
  const int32_t* index;
  T* y;
  template <int V>
  __device__ void run(int64_t i) const {
    if (V > 1 && dims.width % V != 0) return one_by_one<V>(*this, i);
    const auto [b, column] = divide(i, dims.width);
    const int64_t token = index[b];
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(NAN);
    if (token >= 0 && token < dims.tokens) out = load<V>(x + (b * dims.tokens + token) * dims.width + column);
    store(y + i, out);
  }
};

/// Over all of dx (B, T, D).
template <typename T>
struct Place {
  SelectTokensDims dims;
  const T* dy;
  const int32_t* index;
  T* dx;
  template <int V>
  __device__ void run(int64_t i) const {
    if (V > 1 && dims.width % V != 0) return one_by_one<V>(*this, i);
    const auto [row, column] = divide(i, dims.width);
    const auto [b, token] = divide(row, dims.tokens);
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(0.0f);
    if (index[b] == token) out = load<V>(dy + b * dims.width + column);
    store(dx + i, out);
  }
};

/// Over dy (B, D): no two sequences share a token.
template <typename T>
struct Add {
  SelectTokensDims dims;
  const T* dy;
  const int32_t* index;
  T* dx;
  template <int V>
  __device__ void run(int64_t i) const {
    if (V > 1 && dims.width % V != 0) return one_by_one<V>(*this, i);
    const auto [b, column] = divide(i, dims.width);
    const int64_t token = index[b];
    if (token < 0 || token >= dims.tokens) return;
    T* const to = dx + (b * dims.tokens + token) * dims.width + column;
    const auto in = load<V>(dy + i);
    auto out = load<V>(to);
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(widen(out.v[k]) + widen(in.v[k]));
    store(to, out);
  }
};

}  // namespace

template <typename T>
void select_tokens_forward(const Stream& stream, const SelectTokensDims& dims, const T* x, const int32_t* index, T* y) {
  elementwise<T>(stream, dims.batch * dims.width, Forward<T>{dims, x, index, y}, "select_tokens", x, y);
}

template <typename T>
void select_tokens_backward(const Stream& stream, const SelectTokensDims& dims, const T* dy, const int32_t* index, T* dx, Accumulate mode) {
  if (mode == Accumulate::add)
    return elementwise<T>(stream, dims.batch * dims.width, Add<T>{dims, dy, index, dx}, "select_tokens_backward", dy, dx);
  elementwise<T>(stream, dims.batch * dims.tokens * dims.width, Place<T>{dims, dy, index, dx}, "select_tokens_backward", dy, dx);
}

template void select_tokens_forward(const Stream&, const SelectTokensDims&, const float*, const int32_t*, float*);
template void select_tokens_forward(const Stream&, const SelectTokensDims&, const bf16*, const int32_t*, bf16*);
template void select_tokens_backward(const Stream&, const SelectTokensDims&, const float*, const int32_t*, float*, Accumulate);
template void select_tokens_backward(const Stream&, const SelectTokensDims&, const bf16*, const int32_t*, bf16*, Accumulate);

}  // namespace ermoe::cuda
