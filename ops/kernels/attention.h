// Contract of the attention kernels. A row of `qkv` is [q | k | v], each (H, Dh). Read next: ops/cpu/attention.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

/// Which keys a query sees: all of them, or those up to its own position.
enum class AttentionMask { none, causal };

struct AttentionDims {
  int64_t batch = 0;     // B
  int64_t tokens = 0;    // T
  int64_t heads = 0;     // H
  int64_t head_dim = 0;  // Dh
  AttentionMask mask = AttentionMask::none;

  int64_t width() const { return heads * head_dim; }  // D
};

namespace cpu {

/// Elements of scratch that the kernels want, for all threads together.
int64_t attention_forward_scratch(const AttentionDims& dims);
int64_t attention_backward_scratch(const AttentionDims& dims);

/// y = softmax(q kᵀ / √Dh) v per head, and the log-sum-exp of each row of scaled scores.
template <typename T>
void attention_forward(const AttentionDims& dims, const T* qkv /* (B, T, 3D) */, T* y /* (B, T, D) */, Master<T>* lse /* (B, H, T) */,
                       T* scratch);

/// dqkv (+)= the gradient through the above; scores are recomputed from `qkv` and `lse`.
template <typename T>
void attention_backward(const AttentionDims& dims, const T* qkv, const T* y, const Master<T>* lse, const T* dy /* (B, T, D) */,
                        T* dqkv /* (B, T, 3D) */, Accumulate mode, T* scratch);

}  // namespace cpu

namespace cuda {

template <typename T>
void attention_forward(const Stream& stream, const AttentionDims& dims, const T* qkv, T* y, Master<T>* lse);
/// `delta` is scratch of (B, H, T): Σ dy·y of each row and head.
template <typename T>
void attention_backward(const Stream& stream, const AttentionDims& dims, const T* qkv, const T* y, const Master<T>* lse, const T* dy,
                        T* dqkv, Accumulate mode, Master<T>* delta);

}  // namespace cuda
}  // namespace ermoe
