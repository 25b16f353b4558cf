// Combine on the GPU. Every thread owns what it writes (a piece of a token or of a row), a warp owns a token's weights. The floor
// is bytes: N K D elements of the experts' rows, read or written once, and N D of the tokens'. Contract: ops/kernels/combine.h.
#include "ops/kernels/combine.h"

#include "cuda/device/slot_sum.cuh"

namespace ermoe::cuda {
namespace {

template <typename T, Accumulate Mode>
struct ScatterRows {
  int64_t slots, width;
  const float* weights;
  const int32_t* row_slot;
  const T* dout;
  T* dy;

  template <int V>
  __device__ void run(int64_t row, int64_t column) const {
    const int32_t slot = row_slot[row];
    if (slot < 0 && Mode == Accumulate::add) return;
    Pack<T, V> out;
    if (slot < 0) {
#pragma unroll
      for (int v = 0; v < V; ++v) out.v[v] = narrow<T>(0.0f);
    } else {
      const float weight = weights[slot];
      const auto in = load<V>(dout + slot / static_cast<int32_t>(slots) * width + column);
      if constexpr (Mode == Accumulate::add) out = load<V>(dy + row * width + column);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const float g = weight * widen(in.v[v]);
        out.v[v] = narrow<T>(Mode == Accumulate::add ? widen(out.v[v]) + g : g);
      }
    }
    store(dy + row * width + column, out);
  }
};

constexpr int dot_threads = 256;

/// One warp a token; K slots at a time share its reading of dout.
template <typename T, int V, int K>
__global__ void __launch_bounds__(dot_threads)
    dot_kernel(CombineDims dims, const T* y, const int32_t* slot_row, const T* dout, float* dweights, Accumulate mode) {
  const int64_t token = static_cast<int64_t>(blockIdx.x) * (dot_threads / 32) + threadIdx.x / 32;
  if (token >= dims.tokens) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int64_t first = 0; first < dims.slots; first += K) {
    const T* rows[K];
    float sum[K];
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int32_t row = first + k < dims.slots ? slot_row[token * dims.slots + first + k] : -1;
      rows[k] = row < 0 ? nullptr : y + row * dims.width;
      sum[k] = 0;
    }
    for (int64_t column = lane * V; column < dims.width; column += 32 * V) {
      const auto upper = load<V>(dout + token * dims.width + column);
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (rows[k] == nullptr) continue;
        const auto in = load<V>(rows[k] + column);
#pragma unroll
        for (int v = 0; v < V; ++v) sum[k] = fmaf(widen(upper.v[v]), widen(in.v[v]), sum[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
      for (int step = 16; step > 0; step /= 2) sum[k] += __shfl_xor_sync(0xffffffffu, sum[k], step);
      if (lane != 0 || first + k >= dims.slots) continue;
      float& to = dweights[token * dims.slots + first + k];
      to = mode == Accumulate::add ? to + sum[k] : sum[k];
    }
  }
}

template <typename T, int V>
void launch_dots(const Stream& stream, const CombineDims& dims, const T* y, const int32_t* slot_row, const T* dout, float* dweights,
                 Accumulate mode) {
  const auto launch = [&]<int K>(std::integral_constant<int, K>) {
    dot_kernel<T, V, K>
        <<<blocks_for(dims.tokens, dot_threads / 32), dot_threads, 0, native(stream)>>>(dims, y, slot_row, dout, dweights, mode);
    cuda_check(cudaGetLastError(), "combine_backward_weights");
  };
  if (dims.slots == 1) return launch(std::integral_constant<int, 1>{});
  if (dims.slots == 2) return launch(std::integral_constant<int, 2>{});
  launch(std::integral_constant<int, 4>{});
}

}  // namespace

template <typename T>
void combine_forward(const Stream& stream, const CombineDims& dims, const T* y, const Master<T>* weights, const int32_t* slot_row, T* out) {
  sum_slots<Accumulate::overwrite>(stream, dims.tokens, dims.slots, dims.width, slot_row, weights, y, out, "combine_forward");
}

template <typename T>
void combine_backward_rows(const Stream& stream, const CombineDims& dims, const Master<T>* weights, const int32_t* row_slot, const T* dout,
                           T* dy, Accumulate mode) {
  const int64_t rows = dims.tokens * dims.slots;
  const auto launch = [&]<Accumulate Mode>(std::integral_constant<Accumulate, Mode>) {
    const ScatterRows<T, Mode> work{dims.slots, dims.width, weights, row_slot, dout, dy};
    row_work<T>(stream, rows, dims.width, work, "combine_backward_rows", dout, dy);
  };
  if (mode == Accumulate::add) return launch(std::integral_constant<Accumulate, Accumulate::add>{});
  launch(std::integral_constant<Accumulate, Accumulate::overwrite>{});
}

template <typename T>
void combine_backward_weights(const Stream& stream, const CombineDims& dims, const T* y, const int32_t* slot_row, const T* dout,
                              Master<T>* dweights, Accumulate mode) {
  if (dims.tokens * dims.slots == 0) return;
  if (dims.width % pack_width<T> == 0 && all_aligned(y, dout))
    return launch_dots<T, pack_width<T>>(stream, dims, y, slot_row, dout, dweights, mode);
  launch_dots<T, 1>(stream, dims, y, slot_row, dout, dweights, mode);
}

template void combine_forward(const Stream&, const CombineDims&, const float*, const float*, const int32_t*, float*);
template void combine_forward(const Stream&, const CombineDims&, const bf16*, const float*, const int32_t*, bf16*);
template void combine_backward_rows(const Stream&, const CombineDims&, const float*, const int32_t*, const float*, float*, Accumulate);
template void combine_backward_rows(const Stream&, const CombineDims&, const float*, const int32_t*, const bf16*, bf16*, Accumulate);
template void combine_backward_weights(const Stream&, const CombineDims&, const float*, const int32_t*, const float*, float*, Accumulate);
template void combine_backward_weights(const Stream&, const CombineDims&, const bf16*, const int32_t*, const bf16*, float*, Accumulate);

}  // namespace ermoe::cuda
