// The factored product on the GPU: 2·E·a·b·r operations forward and twice that backward by cublasLt. Beside the products, in
// bf16: forward a pass over the small factor, 6 bytes an element; backward one over dw where that is float, 6 bytes, and one over
// the small factor and its product, 14 bytes or 18; and where the large factor has no twin, its copy twice, 6 bytes each.
// Contract: ops/kernels/materialize.h.
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

/// to = from diag(s), for the small factor's rows of every expert.
template <typename T>
struct ScaleColumns {
  MaterializeDims dims;
  const float *from, *s;
  T* to;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = load<V>(from + i);
    auto [row, column] = divide(i, dims.rank);
    int64_t expert = divide(row, dims.small).row;
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      out.v[k] = narrow<T>(in.v[k] * s[expert * dims.rank + column]);
      if (++column < dims.rank) continue;
      column = 0;
      if (++row % dims.small == 0) ++expert;
    }
    store(to + i, out);
  }
};

template <typename T>
void scale_columns(const Stream& stream, const MaterializeDims& dims, const float* from, const float* s, T* to) {
  elementwise<float>(stream, dims.products(), ScaleColumns<T>{dims, from, s, to}, "materialize", from, to);
}

constexpr int lanes = 8, rows_at_once = 64, unroll = 2, warps = lanes * rows_at_once / warp_size;

/// dsmall (+)= p diag(s), ds (+)= column sums of small · p, scaled = small diag(s), in one pass: a block has all rows of 8 · V
/// columns of one expert. A turn's operands are fetched before any of it is stored, so that enough is on its way in few blocks, and
/// sums need no second launch; gradients that are added to are rare and not fetched ahead. Each of the three may be null. `scaled`
/// may be p's memory: a thread reads an element before it writes it.
template <int V, typename T>
__global__ void __launch_bounds__(lanes* rows_at_once, 2)
    small_gradients_kernel(MaterializeDims dims, const float* small, const float* s, const float* p, Destination<float> dsmall,
                           Destination<float> ds, T* scaled) {
  __shared__ float parts[warps][lanes * V];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % lanes;
  const bool adds = dsmall.data != nullptr && dsmall.mode == Accumulate::add;
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * lanes + lane) * V;
  for (int64_t e = blockIdx.y; e < dims.experts; e += gridDim.y) {
    const int64_t rows = column < dims.rank ? dims.small : 0, first = e * dims.small * dims.rank + column;
    Pack<float, V> scale{};
    if (rows > 0) scale = load<V>(s + e * dims.rank + column);
    float sum[V] = {};
    for (int64_t begin = thread / lanes; begin < rows; begin += unroll * rows_at_once) {
      Pack<float, V> owns[unroll], ps[unroll];
      const auto each = [&](auto&& fn) {
#pragma unroll
        for (int l = 0; l < unroll; ++l)
          if (const int64_t row = begin + l * rows_at_once; row < rows) fn(first + row * dims.rank, owns[l], ps[l]);
      };
      each([&](int64_t at, auto& own, auto& product) {
        own = load<V>(small + at);
        product = load<V>(p + at);
      });
      each([&](int64_t at, const auto& own, const auto& product) {
        Pack<float, V> gradient{};
        if (adds) gradient = load<V>(dsmall.data + at);
        Pack<T, V> out;
#pragma unroll
        for (int k = 0; k < V; ++k) {
          gradient.v[k] += product.v[k] * scale.v[k];
          sum[k] += own.v[k] * product.v[k];
          out.v[k] = narrow<T>(own.v[k] * scale.v[k]);
        }
        if (dsmall.data != nullptr) store(dsmall.data + at, gradient);
        if (scaled != nullptr) store(scaled + at, out);
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

template <typename T>
void small_gradients(const Stream& stream, const MaterializeDims& dims, const float* small, const float* s, const float* p,
                     Destination<float> dsmall, Destination<float> ds, T* scaled) {
  if (dims.experts * dims.rank == 0) return;
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    const dim3 grid(blocks_for(dims.rank, lanes * V), static_cast<unsigned>(std::min<int64_t>(dims.experts, 65535)));
    small_gradients_kernel<V><<<grid, lanes * rows_at_once, 0, native(stream)>>>(dims, small, s, p, dsmall, ds, scaled);
    cuda_check(cudaGetLastError(), "materialize_backward");
  };
  constexpr int wide = pack_width<float>;
  if (dims.rank % wide == 0 && all_aligned(small, s, p, dsmall.data, scaled)) return launch(std::integral_constant<int, wide>{});
  launch(std::integral_constant<int, 1>{});
}

int64_t whole_lines(int64_t numel) { return (numel + 7) / 8 * 8; }  // so that each copy starts on 16 bytes

/// The operand of a product in T: itself where it is of T, or a narrowed copy that takes `place` and moves it on.
template <typename T, typename From>
const T* operand(const Stream& stream, int64_t numel, const From* from, T*& place) {
  if constexpr (std::is_same_v<T, From>) {
    return from;
  } else {
    T* const copy = place;
    convert(stream, numel, from, copy, Accumulate::overwrite);
    place += whole_lines(numel);
    return copy;
  }
}

/// Where small diag(s) goes in T: over the products where T is float, or to `place`, which moves on.
template <typename T>
T* place_of_scaled(const MaterializeDims& dims, [[maybe_unused]] float* products, [[maybe_unused]] T*& place) {
  if constexpr (std::is_same_v<T, float>) {
    return products;
  } else {
    T* const scaled = place;
    place += whole_lines(dims.products());
    return scaled;
  }
}

template <typename T>
float beta_of(const Destination<T>& to) {
  return to.mode == Accumulate::add ? 1.0f : 0.0f;
}

}  // namespace

template <typename T>
int64_t materialize_forward_narrowed(const MaterializeDims& dims, const T* twin) {
  if (std::is_same_v<T, float>) return 0;
  return whole_lines(dims.products()) + (twin == nullptr ? dims.larges() : 0);
}

template <typename T, typename G>
int64_t materialize_backward_narrowed(const MaterializeDims& dims, const T* twin, const G*) {
  return materialize_forward_narrowed(dims, twin) + (std::is_same_v<T, G> ? 0 : whole_lines(dims.weights()));
}

template <typename T>
void materialize_forward(const Stream& stream, const MaterializeDims& dims, const Master<T>* small, const Master<T>* s,
                         const Master<T>* large, const T* twin, Master<T>* products, T* narrowed, T* w) {
  T* const scaled = place_of_scaled(dims, products, narrowed);
  scale_columns(stream, dims, small, s, scaled);
  const T* other = twin != nullptr ? twin : operand(stream, dims.larges(), large, narrowed);
  const bool transposed = dims.w == Trans::yes;
  const int64_t m = transposed ? dims.large : dims.small, n = transposed ? dims.small : dims.large;
  gemm(stream, packed_gemm(Trans::no, Trans::yes, m, n, dims.rank, dims.experts), 1, transposed ? other : scaled,
       transposed ? scaled : other, 0, w);
}

template <typename T, typename G, typename L>
void materialize_backward(const Stream& stream, const MaterializeDims& dims, const Master<T>* small, const Master<T>* s,
                          const Master<T>* large, const T* twin, const G* dw, Master<T>* products, T* narrowed,
                          Destination<Master<T>> dsmall, Destination<Master<T>> ds, Destination<L> dlarge) {
  const bool takes_p = dsmall.data != nullptr || ds.data != nullptr;
  T* const scaled = place_of_scaled(dims, products, narrowed);
  const T* upper = operand(stream, dims.weights(), dw, narrowed);
  if (takes_p) {
    const T* right = twin != nullptr ? twin : operand(stream, dims.larges(), large, narrowed);
    gemm(stream, packed_gemm(dims.w, Trans::no, dims.small, dims.rank, dims.large, dims.experts), 1, upper, right, 0, products);
    small_gradients(stream, dims, small, s, products, dsmall, ds, dlarge.data != nullptr ? scaled : nullptr);
  }
  if (dlarge.data == nullptr) return;
  if (!takes_p) scale_columns(stream, dims, small, s, scaled);
  gemm(stream, packed_gemm(flip(dims.w), Trans::no, dims.large, dims.rank, dims.small, dims.experts), 1, upper, scaled, beta_of(dlarge),
       dlarge.data);
}

template int64_t materialize_forward_narrowed(const MaterializeDims&, const float*);
template int64_t materialize_forward_narrowed(const MaterializeDims&, const bf16*);
template int64_t materialize_backward_narrowed(const MaterializeDims&, const float*, const float*);
template int64_t materialize_backward_narrowed(const MaterializeDims&, const bf16*, const float*);
template int64_t materialize_backward_narrowed(const MaterializeDims&, const bf16*, const bf16*);
template void materialize_forward<float>(const Stream&, const MaterializeDims&, const float*, const float*, const float*, const float*,
                                         float*, float*, float*);
template void materialize_forward<bf16>(const Stream&, const MaterializeDims&, const float*, const float*, const float*, const bf16*,
                                        float*, bf16*, bf16*);
template void materialize_backward(const Stream&, const MaterializeDims&, const float*, const float*, const float*, const float*,
                                   const float*, float*, float*, Destination<float>, Destination<float>, Destination<float>);
template void materialize_backward(const Stream&, const MaterializeDims&, const float*, const float*, const float*, const bf16*,
                                   const float*, float*, bf16*, Destination<float>, Destination<float>, Destination<float>);
template void materialize_backward(const Stream&, const MaterializeDims&, const float*, const float*, const float*, const bf16*,
                                   const bf16*, float*, bf16*, Destination<float>, Destination<float>, Destination<float>);
template void materialize_backward(const Stream&, const MaterializeDims&, const float*, const float*, const float*, const bf16*,
                                   const float*, float*, bf16*, Destination<float>, Destination<float>, Destination<bf16>);
template void materialize_backward(const Stream&, const MaterializeDims&, const float*, const float*, const float*, const bf16*,
                                   const bf16*, float*, bf16*, Destination<float>, Destination<float>, Destination<bf16>);

}  // namespace ermoe::cuda
