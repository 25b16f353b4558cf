// Attention on the GPU: which of its paths takes a call. Contract: ops/kernels/attention.h.
#include "cuda/device/pack.cuh"
#include "cuda/kernels/attention_paths.h"

#include <type_traits>

namespace ermoe::cuda {

template <typename T>
void attention_forward(const Stream& stream, const AttentionDims& dims, const T* qkv, T* y, Master<T>* lse) {
  if (dims.batch == 0 || dims.tokens == 0) return;
  if constexpr (std::is_same_v<T, bf16>)
    if (attention_fits_mma(dims) && all_aligned(qkv, y)) return attention_forward_mma(stream, dims, qkv, y, lse);
  attention_forward_any(stream, dims, qkv, y, lse);
}

template <typename T>
void attention_backward(const Stream& stream, const AttentionDims& dims, const T* qkv, const T* y, const Master<T>* lse, const T* dy,
                        T* dqkv, Accumulate mode, Master<T>* delta) {
  if (dims.batch == 0 || dims.tokens == 0) return;
  if constexpr (std::is_same_v<T, bf16>)
    if (attention_fits_mma(dims) && all_aligned(qkv, y, dy, dqkv)) {
      const AttentionGradients work{dims, qkv, y, lse, dy, dqkv, mode};
      if (attention_backward_fits_short(stream, dims)) return attention_backward_short(stream, work);
      return attention_backward_mma(stream, work, delta);
    }
  attention_backward_any(stream, dims, qkv, y, lse, dy, dqkv, mode, delta);
}

template void attention_forward(const Stream&, const AttentionDims&, const float*, float*, float*);
template void attention_forward(const Stream&, const AttentionDims&, const bf16*, bf16*, float*);
template void attention_backward(const Stream&, const AttentionDims&, const float*, const float*, const float*, const float*, float*,
                                 Accumulate, float*);
template void attention_backward(const Stream&, const AttentionDims&, const bf16*, const bf16*, const float*, const bf16*, bf16*,
                                 Accumulate, float*);

}  // namespace ermoe::cuda
