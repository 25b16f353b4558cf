// Combine on the GPU. Forward every thread owns a piece of a token; backward a warp owns a token with its rows, so that dout is
// read once for both gradients. The floor is bytes: N K D elements of the experts' rows forward, twice as many backward, and N D of
// the tokens'. Contract: ops/kernels/combine.h.
#include "ops/kernels/combine.h"

#include "cuda/device/slot_sum.cuh"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256, warps = threads / 32;

/// One warp a token, K of its slots at a time.
template <typename T>
struct Backward {
  CombineDims dims;
  const T* y;
  const float* weights;
  const int32_t *slot_row, *row_slot;
  const T* dout;
  Destination<T> dy;
  Destination<float> dweights;

  /// A row's gradient from that of its token.
  template <int V>
  __device__ void put(T* to, const Pack<T, V>& upper, float weight) const {
    Pack<T, V> out;
    if (dy.mode == Accumulate::add) {
      out = load<V>(to);
#pragma unroll
      for (int v = 0; v < V; ++v) out.v[v] = narrow<T>(fmaf(weight, widen(upper.v[v]), widen(out.v[v])));
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) out.v[v] = narrow<T>(weight * widen(upper.v[v]));
    }
    store(to, out);
  }

  /// Slots [first, first + K) of the token.
  template <int V, int K>
  __device__ void run(int64_t token, int64_t first, int lane) const {
    int64_t at[K];  // where the slot's row starts; -1: it has none
    float weight[K], sum[K];
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int64_t slot = token * dims.slots + first + k;
      const int32_t row = first + k < dims.slots ? slot_row[slot] : -1;
      at[k] = row < 0 ? -1 : row * dims.width;
      weight[k] = row < 0 ? 0.0f : weights[slot];
      sum[k] = 0;
    }
    for (int64_t column = lane * V; column < dims.width; column += 32 * V) {
      const auto upper = load<V>(dout + token * dims.width + column);
      Pack<T, V> in[K];
#pragma unroll
      for (int k = 0; k < K; ++k)
        if (at[k] >= 0 && dweights.data != nullptr) in[k] = load<V>(y + at[k] + column);
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (at[k] < 0) continue;
        if (dy.data != nullptr) put<V>(dy.data + at[k] + column, upper, weight[k]);
        if (dweights.data == nullptr) continue;
#pragma unroll
        for (int v = 0; v < V; ++v) sum[k] = fmaf(widen(upper.v[v]), widen(in[k].v[v]), sum[k]);
      }
    }
    if (dweights.data == nullptr) return;
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
      for (int step = 16; step > 0; step /= 2) sum[k] += __shfl_xor_sync(0xffffffffu, sum[k], step);
      if (lane != 0 || first + k >= dims.slots) continue;
      float& to = dweights.data[token * dims.slots + first + k];
      to = dweights.mode == Accumulate::add ? to + sum[k] : sum[k];
    }
  }

  /// Zeros in those of the rows token K … that nobody fills: a token has a share of the rows as it has slots.
  template <int V>
  __device__ void clear_unfilled(int64_t token, int lane) const {
    if (dy.data == nullptr || dy.mode == Accumulate::add) return;
    Pack<T, V> zeros;
#pragma unroll
    for (int v = 0; v < V; ++v) zeros.v[v] = narrow<T>(0.0f);
    for (int64_t row = token * dims.slots; row < min((token + 1) * dims.slots, dims.rows); ++row) {
      if (row_slot[row] >= 0) continue;
      for (int64_t column = lane * V; column < dims.width; column += 32 * V) store(dy.data + row * dims.width + column, zeros);
    }
  }
};

template <typename T, int V, int K>
__global__ void __launch_bounds__(threads) backward_kernel(Backward<T> work) {
  const int64_t token = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32;
  if (token >= work.dims.tokens) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int64_t first = 0; first < work.dims.slots; first += K) work.template run<V, K>(token, first, lane);
  work.template clear_unfilled<V>(token, lane);
}

template <int V, typename T>
void launch_backward(const Stream& stream, const Backward<T>& work) {
  const auto launch = [&]<int K>(std::integral_constant<int, K>) {
    backward_kernel<T, V, K><<<blocks_for(work.dims.tokens, warps), threads, 0, native(stream)>>>(work);
    cuda_check(cudaGetLastError(), "combine_backward");
  };
  if (work.dims.slots == 1) return launch(std::integral_constant<int, 1>{});
  if (work.dims.slots == 2) return launch(std::integral_constant<int, 2>{});
  launch(std::integral_constant<int, 4>{});
}

}  // namespace

template <typename T>
void combine_forward(const Stream& stream, const CombineDims& dims, const T* y, const Master<T>* weights, const int32_t* slot_row, T* out) {
  sum_slots<Accumulate::overwrite>(stream, dims.tokens, dims.slots, dims.width, slot_row, weights, y, out, "combine_forward");
}

template <typename T>
void combine_backward(const Stream& stream, const CombineDims& dims, const T* y, const Master<T>* weights, const int32_t* slot_row,
                      const int32_t* row_slot, const T* dout, const Destination<T>& dy, const Destination<Master<T>>& dweights) {
  if (dims.tokens * dims.slots == 0) return;
  const Backward<T> work{dims, y, weights, slot_row, row_slot, dout, dy, dweights};
  if (dims.width % pack_width<T> == 0 && all_aligned(y, dout, dy.data)) return launch_backward<pack_width<T>>(stream, work);
  launch_backward<1>(stream, work);
}

template void combine_forward(const Stream&, const CombineDims&, const float*, const float*, const int32_t*, float*);
template void combine_forward(const Stream&, const CombineDims&, const bf16*, const float*, const int32_t*, bf16*);
template void combine_backward(const Stream&, const CombineDims&, const float*, const float*, const int32_t*, const int32_t*, const float*,
                               const Destination<float>&, const Destination<float>&);
template void combine_backward(const Stream&, const CombineDims&, const bf16*, const float*, const int32_t*, const int32_t*, const bf16*,
                               const Destination<bf16>&, const Destination<float>&);

}  // namespace ermoe::cuda
