// The factored product on the GPU: 2·E·m·n·r operations forward and twice that backward by cublasLt, beside one pass over u
// before and one over u and p behind the products. Contract: ops/kernels/materialize.h.
#include "ops/kernels/materialize.h"

#include "core/kernels/flat.h"
#include "cuda/device/elementwise.cuh"
#include "cuda/device/grid.cuh"
#include "cuda/device/index.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/runtime/gemm.h"

#include <type_traits>

namespace ermoe::cuda {
namespace {

/// to = from diag(s), for rows of every expert.
template <typename T>
struct ScaleColumns {
  MaterializeDims dims;
  const float *from, *s;
  T* to;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = load<V>(from + i);
    auto [row, column] = divide(i, dims.rank);
    int64_t expert = divide(row, dims.rows).row;
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      out.v[k] = narrow<T>(in.v[k] * s[expert * dims.rank + column]);
      if (++column < dims.rank) continue;
      column = 0;
      if (++row % dims.rows == 0) ++expert;
    }
    store(to + i, out);
  }
};

template <typename T>
void scale_columns(const Stream& stream, const MaterializeDims& dims, const float* from, const float* s, T* to) {
  elementwise<float>(stream, dims.products(), ScaleColumns<T>{dims, from, s, to}, "materialize", from, to);
}

constexpr int lanes = 8, rows_at_once = 64, unroll = 2, warps = lanes * rows_at_once / warp_size;

/// du (+)= p diag(s) and ds (+)= column sums of u · p, in one pass: a block has all rows of 8 · V columns of one expert. All of a
/// turn is fetched before any of it is stored, so that enough is on its way in few blocks, and sums need no second launch.
template <int V>
__global__ void __launch_bounds__(lanes* rows_at_once, 2)
    left_gradients_kernel(MaterializeDims dims, const float* u, const float* s, const float* p, Destination<float> du,
                          Destination<float> ds) {
  __shared__ float parts[warps][lanes * V];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % lanes;
  const bool adds = du.data != nullptr && du.mode == Accumulate::add;
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * lanes + lane) * V;
  for (int64_t e = blockIdx.y; e < dims.experts; e += gridDim.y) {
    const int64_t rows = column < dims.rank ? dims.rows : 0, first = e * dims.rows * dims.rank + column;
    Pack<float, V> scale{};
    if (rows > 0) scale = load<V>(s + e * dims.rank + column);
    float sum[V] = {};
    for (int64_t begin = thread / lanes; begin < rows; begin += unroll * rows_at_once) {
      Pack<float, V> us[unroll], ps[unroll], before[unroll] = {};
      const auto each = [&](auto&& fn) {
#pragma unroll
        for (int l = 0; l < unroll; ++l)
          if (const int64_t row = begin + l * rows_at_once; row < rows) fn(first + row * dims.rank, us[l], ps[l], before[l]);
      };
      each([&](int64_t at, auto& own, auto& product, auto& old) {
        product = load<V>(p + at);
        if (ds.data != nullptr) own = load<V>(u + at);
        if (adds) old = load<V>(du.data + at);
      });
      each([&](int64_t at, const auto& own, const auto& product, auto& value) {
#pragma unroll
        for (int k = 0; k < V; ++k) {
          value.v[k] += product.v[k] * scale.v[k];
          if (ds.data != nullptr) sum[k] += own.v[k] * product.v[k];
        }
        if (du.data != nullptr) store(du.data + at, value);
      });
    }
    if (ds.data == nullptr) continue;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      for (int distance = lanes; distance < warp_size; distance *= 2) sum[k] += __shfl_xor_sync(all_lanes, sum[k], distance);
      if (thread % warp_size < lanes) parts[thread / warp_size][lane * V + k] = sum[k];
    }
    __syncthreads();
    if (const int64_t own = static_cast<int64_t>(blockIdx.x) * lanes * V + thread; thread < lanes * V && own < dims.rank) {
      float total = 0;
#pragma unroll
      for (int warp = 0; warp < warps; ++warp) total += parts[warp][thread];
      float* const to = ds.data + e * dims.rank + own;
      *to = ds.mode == Accumulate::add ? *to + total : total;
    }
    __syncthreads();
  }
}

void left_gradients(const Stream& stream, const MaterializeDims& dims, const float* u, const float* s, const float* p,
                    Destination<float> du, Destination<float> ds) {
  if (dims.experts * dims.rank == 0) return;
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    const dim3 grid(blocks_for(dims.rank, lanes * V), static_cast<unsigned>(std::min<int64_t>(dims.experts, 65535)));
    left_gradients_kernel<V><<<grid, lanes * rows_at_once, 0, native(stream)>>>(dims, u, s, p, du, ds);
    cuda_check(cudaGetLastError(), "materialize_backward");
  };
  constexpr int wide = pack_width<float>;
  if (dims.rank % wide == 0 && all_aligned(u, s, p, du.data)) return launch(std::integral_constant<int, wide>{});
  launch(std::integral_constant<int, 1>{});
}

/// The operand of a product in T: itself, or a narrowed copy that takes `place` and moves it on.
template <typename T>
const T* operand(const Stream& stream, int64_t numel, const float* from, T*& place) {
  if constexpr (std::is_same_v<T, float>) {
    return from;
  } else {
    T* const copy = place;
    convert(stream, numel, from, copy, Accumulate::overwrite);
    place += (numel + 7) / 8 * 8;
    return copy;
  }
}

/// u diag(s) in T: in `products` where that is float, else in `place`.
template <typename T>
const T* scaled_u(const Stream& stream, const MaterializeDims& dims, const float* u, const float* s, float* products, T* place) {
  T* to = nullptr;
  if constexpr (std::is_same_v<T, float>)
    to = products;
  else
    to = place;
  scale_columns(stream, dims, u, s, to);
  return to;
}

float beta_of(const Destination<float>& to) { return to.mode == Accumulate::add ? 1.0f : 0.0f; }

}  // namespace

template <typename T>
int64_t materialize_narrowed(const MaterializeDims& dims) {
  const auto [experts, m, n, r] = dims;
  const auto whole_lines = [](int64_t numel) { return (numel + 7) / 8 * 8; };  // so that each copy starts on 16 bytes
  return std::is_same_v<T, float> ? 0 : whole_lines(experts * m * n) + whole_lines(experts * n * r) + experts * m * r;
}

template <typename T>
void materialize_forward(const Stream& stream, const MaterializeDims& dims, const Master<T>* u, const Master<T>* s, const Master<T>* v,
                         Master<T>* products, T* narrowed, T* w) {
  const auto [experts, m, n, r] = dims;
  const T* right = operand(stream, experts * n * r, v, narrowed);
  const T* left = scaled_u(stream, dims, u, s, products, narrowed);
  gemm(stream, packed_gemm(Trans::no, Trans::yes, m, n, r, experts), 1, left, right, 0, w);
}

template <typename T>
void materialize_backward(const Stream& stream, const MaterializeDims& dims, const Master<T>* u, const Master<T>* s, const Master<T>* v,
                          const Master<T>* dw, Master<T>* products, T* narrowed, Destination<Master<T>> du, Destination<Master<T>> ds,
                          Destination<Master<T>> dv) {
  const auto [experts, m, n, r] = dims;
  const T* upper = operand(stream, experts * m * n, dw, narrowed);
  if (du.data != nullptr || ds.data != nullptr) {
    T* place = narrowed;
    const T* right = operand(stream, experts * n * r, v, place);
    gemm(stream, packed_gemm(Trans::no, Trans::no, m, r, n, experts), 1, upper, right, 0, products);
    left_gradients(stream, dims, u, s, products, du, ds);
  }
  if (dv.data == nullptr) return;
  const T* left = scaled_u(stream, dims, u, s, products, narrowed);
  gemm(stream, packed_gemm(Trans::yes, Trans::no, n, r, m, experts), 1, upper, left, beta_of(dv), dv.data);
}

template int64_t materialize_narrowed<float>(const MaterializeDims&);
template int64_t materialize_narrowed<bf16>(const MaterializeDims&);
template void materialize_forward<float>(const Stream&, const MaterializeDims&, const float*, const float*, const float*, float*, float*,
                                         float*);
template void materialize_forward<bf16>(const Stream&, const MaterializeDims&, const float*, const float*, const float*, float*, bf16*,
                                        bf16*);
template void materialize_backward<float>(const Stream&, const MaterializeDims&, const float*, const float*, const float*, const float*,
                                          float*, float*, Destination<float>, Destination<float>, Destination<float>);
template void materialize_backward<bf16>(const Stream&, const MaterializeDims&, const float*, const float*, const float*, const float*,
                                         float*, bf16*, Destination<float>, Destination<float>, Destination<float>);

}  // namespace ermoe::cuda
