// to_n (+)= Σ_k w_nk from_row(n,k), over the slots of token n that have a row, in the order of k: the way back from the experts'
// rows to the tokens. Combine's forward has weights, dispatch's backward has none.
#pragma once

#include "core/accumulate.h"
#include "cuda/device/row_work.cuh"

namespace ermoe::cuda {

/// K: slots a token where they are few, so that all rows are on their way at once; else 0.
template <typename T, int K, Accumulate Mode>
struct SlotSum {
  int64_t slots, width;
  const int32_t* slot_row;  // (N*K)
  const float* weights;     // (N*K) or null: all 1
  const T* from;            // the experts' rows, of D
  T* to;                    // (N, D)

  template <int V>
  __device__ void add(int64_t slot, int32_t row, const Pack<T, V>& in, float (&sum)[V]) const {
    if (row < 0) return;
    const float weight = weights == nullptr ? 1.0f : weights[slot];
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] = fmaf(weight, widen(in.v[v]), sum[v]);
  }

  template <int V>
  __device__ void run(int64_t token, int64_t column) const {
    T* const at = to + token * width + column;
    float sum[V];
    if constexpr (Mode == Accumulate::add) {
      const auto before = load<V>(at);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] = widen(before.v[v]);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] = 0;
    }
    if constexpr (K > 0) {
      int32_t row[K];
      Pack<T, V> in[K];
#pragma unroll
      for (int k = 0; k < K; ++k) row[k] = slot_row[token * K + k];
#pragma unroll
      for (int k = 0; k < K; ++k)
        if (row[k] >= 0) in[k] = load<V>(from + row[k] * width + column);
#pragma unroll
      for (int k = 0; k < K; ++k) add<V>(token * K + k, row[k], in[k], sum);
    } else {
      for (int64_t slot = token * slots; slot < (token + 1) * slots; ++slot) {
        const int32_t row = slot_row[slot];
        if (row >= 0) add<V>(slot, row, load<V>(from + row * width + column), sum);
      }
    }
    Pack<T, V> out;
#pragma unroll
    for (int v = 0; v < V; ++v) out.v[v] = narrow<T>(sum[v]);
    store(at, out);
  }
};

template <Accumulate Mode, typename T>
void sum_slots(const Stream& stream, int64_t tokens, int64_t slots, int64_t width, const int32_t* slot_row, const float* weights,
               const T* from, T* to, const char* name) {
  const auto launch = [&]<int K>(std::integral_constant<int, K>) {
    row_work<T>(stream, tokens, width, SlotSum<T, K, Mode>{slots, width, slot_row, weights, from, to}, name, from, to);
  };
  if (slots == 1) return launch(std::integral_constant<int, 1>{});
  if (slots == 2) return launch(std::integral_constant<int, 2>{});
  launch(std::integral_constant<int, 0>{});
}

}  // namespace ermoe::cuda
