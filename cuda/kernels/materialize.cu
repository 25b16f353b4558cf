// The factored product on the GPU: 2·E·m·n·r operations forward and twice that backward by cublasLt, beside one pass over u
// before and one over u and p behind the products. Contract: ops/kernels/materialize.h.
#include "ops/kernels/materialize.h"

#include "core/kernels/flat.h"
#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"
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

constexpr int lanes = 32, rows_at_once = 16;

/// du (+)= p diag(s) and ds (+)= column sums of u · p, in one pass: a block has 32 columns of one expert.
__global__ void __launch_bounds__(lanes* rows_at_once) left_gradients_kernel(MaterializeDims dims, const float* u, const float* s,
                                                                             const float* p, Destination<float> du, Destination<float> ds) {
  __shared__ float parts[rows_at_once][lanes];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * lanes + threadIdx.x;
  for (int64_t e = blockIdx.y; e < dims.experts; e += gridDim.y) {
    float sum = 0;
    if (column < dims.rank) {
      const float scale = s[e * dims.rank + column];
#pragma unroll 4
      for (int64_t row = threadIdx.y; row < dims.rows; row += rows_at_once) {
        const int64_t at = (e * dims.rows + row) * dims.rank + column;
        const float value = p[at];
        if (du.data != nullptr) du.data[at] = (du.mode == Accumulate::add ? du.data[at] : 0.0f) + value * scale;
        if (ds.data != nullptr) sum += u[at] * value;
      }
    }
    if (ds.data == nullptr) continue;
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < dims.rank) {
      float total = 0;
#pragma unroll
      for (int i = 0; i < rows_at_once; ++i) total += parts[i][threadIdx.x];
      float* const to = ds.data + e * dims.rank + column;
      *to = ds.mode == Accumulate::add ? *to + total : total;
    }
    __syncthreads();
  }
}

void left_gradients(const Stream& stream, const MaterializeDims& dims, const float* u, const float* s, const float* p,
                    Destination<float> du, Destination<float> ds) {
  if (dims.experts * dims.rank == 0) return;
  const dim3 grid(static_cast<unsigned>((dims.rank + lanes - 1) / lanes), static_cast<unsigned>(std::min<int64_t>(dims.experts, 65535)));
  left_gradients_kernel<<<grid, dim3(lanes, rows_at_once), 0, native(stream)>>>(dims, u, s, p, du, ds);
  cuda_check(cudaGetLastError(), "materialize_backward");
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
