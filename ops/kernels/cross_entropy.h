// Contract of the kernels of the losses over classes with soft targets: cross-entropy, KL divergence and binary
// cross-entropy. Read next: ops/cpu/cross_entropy.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

/// What is subtracted from each row's cross-entropy: nothing, or the entropy of its targets, which makes it KL(t‖softmax).
enum class EntropyOffset { none, targets };

struct CrossEntropyDims {
  int64_t batch = 0;    // B
  int64_t classes = 0;  // Y
  EntropyOffset offset = EntropyOffset::none;
};

/// Targets and class weights are small and their sums matter, so they are f32 where the logits are bf16.
namespace cpu {

/// loss = 1/B Σ_b Σ_y w_y t_by (lse_b - x_by), less the offset. `class_weights` may be null: all 1.
template <typename T>
void cross_entropy_forward(const CrossEntropyDims& dims, const T* logits /* (B, Y) */, const Master<T>* targets /* (B, Y) */,
                           const Master<T>* class_weights /* (Y) */, Master<T>* lse /* (B) */, Master<T>* row_losses /* (B), scratch */,
                           Master<T>* loss /* () */);

/// dlogits (+)= dloss/B (softmax(x) Σ_y w_y t_y - w t).
template <typename T>
void cross_entropy_backward(const CrossEntropyDims& dims, const T* logits, const Master<T>* targets, const Master<T>* class_weights,
                            const Master<T>* lse, const Master<T>* dloss /* () */, T* dlogits, Accumulate mode);

/// loss = 1/B Σ_b Σ_y w_y (max(x, 0) - x t + log(1 + e^-|x|)).
template <typename T>
void sigmoid_cross_entropy_forward(const CrossEntropyDims& dims, const T* logits, const Master<T>* targets, const Master<T>* class_weights,
                                   Master<T>* row_losses /* (B), scratch */, Master<T>* loss /* () */);

/// dlogits (+)= dloss/B w (σ(x) - t).
template <typename T>
void sigmoid_cross_entropy_backward(const CrossEntropyDims& dims, const T* logits, const Master<T>* targets, const Master<T>* class_weights,
                                    const Master<T>* dloss, T* dlogits, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void cross_entropy_forward(const Stream& stream, const CrossEntropyDims& dims, const T* logits, const Master<T>* targets,
                           const Master<T>* class_weights, Master<T>* lse, Master<T>* row_losses, Master<T>* loss);
template <typename T>
void cross_entropy_backward(const Stream& stream, const CrossEntropyDims& dims, const T* logits, const Master<T>* targets,
                            const Master<T>* class_weights, const Master<T>* lse, const Master<T>* dloss, T* dlogits, Accumulate mode);
template <typename T>
void sigmoid_cross_entropy_forward(const Stream& stream, const CrossEntropyDims& dims, const T* logits, const Master<T>* targets,
                                   const Master<T>* class_weights, Master<T>* row_losses, Master<T>* loss);
template <typename T>
void sigmoid_cross_entropy_backward(const Stream& stream, const CrossEntropyDims& dims, const T* logits, const Master<T>* targets,
                                    const Master<T>* class_weights, const Master<T>* dloss, T* dlogits, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
