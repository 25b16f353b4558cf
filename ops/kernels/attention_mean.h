// Contract of the kernels of head-mean attention. Read next: ops/cpu/attention_mean.cpp.
#pragma once

#include "ops/kernels/attention.h"
#include "ops/kernels/destination.h"

namespace ermoe {
namespace cpu {

/// Elements of scratch that the kernels want, for all threads together.
int64_t attention_mean_forward_scratch(const AttentionDims& dims);
int64_t attention_mean_backward_scratch(const AttentionDims& dims);

/// y = (1/H Σ_h softmax(q_h k_hᵀ / √Dh)) tokens, and the log-sum-exp of each row of scaled scores. The mask is `none`.
template <typename T>
void attention_mean_forward(const AttentionDims& dims, const T* qkv /* (B, T, 3D) */, const T* tokens /* (B, T, D) */, T* y /* (B, T, D) */,
                            Master<T>* lse /* (B, H, T) */, T* scratch);

/// The gradients through the above; that of v is zero.
template <typename T>
void attention_mean_backward(const AttentionDims& dims, const T* qkv, const T* tokens, const Master<T>* lse, const T* dy,
                             Destination<T> dqkv, Destination<T> dtokens, T* scratch);

}  // namespace cpu

namespace cuda {

template <typename T>
void attention_mean_forward(const Stream& stream, const AttentionDims& dims, const T* qkv, const T* tokens, T* y, Master<T>* lse);
/// `delta` is scratch of (B, H, T): Σ_j P_ij dA_ij of each row and head, dA = dy tokensᵀ / H.
template <typename T>
void attention_mean_backward(const Stream& stream, const AttentionDims& dims, const T* qkv, const T* tokens, const Master<T>* lse,
                             const T* dy, Destination<T> dqkv, Destination<T> dtokens, Master<T>* delta);

}  // namespace cuda
}  // namespace ermoe
