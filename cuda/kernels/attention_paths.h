// The ways in which attention runs on a GPU. Read next: cuda/kernels/attention.cu, which chooses.
#pragma once

#include "ops/kernels/attention.h"

namespace ermoe::cuda {

/// Float32 arithmetic on tiles, for every head width, alignment and type.
template <typename T>
void attention_forward_any(const Stream& stream, const AttentionDims& dims, const T* qkv, T* y, float* lse);
template <typename T>
void attention_backward_any(const Stream& stream, const AttentionDims& dims, const T* qkv, const T* y, const float* lse, const T* dy,
                            T* dqkv, Accumulate mode, float* delta);

/// True where the matrix units can take it: heads a multiple of 8 and at most 128 wide.
inline bool attention_fits_mma(const AttentionDims& dims) { return dims.head_dim % 8 == 0 && dims.head_dim <= 128; }

/// bf16 products with float sums; every pointer 16-byte aligned.
void attention_forward_mma(const Stream& stream, const AttentionDims& dims, const bf16* qkv, bf16* y, float* lse);

/// What the way back reads and writes; shapes: ops/kernels/attention.h.
struct AttentionGradients {
  AttentionDims d;
  const bf16 *qkv, *y;
  const float* lse;
  const bf16* dy;
  bf16* dqkv;
  Accumulate mode;
};
void attention_backward_mma(const Stream& stream, const AttentionGradients& work, float* delta);

/// True where one block can hold all keys and values of a head, and that pays: heads a multiple of 8 and at most 64 wide, 129 to
/// 208 tokens, a GPU whose blocks get that much shared memory.
bool attention_backward_fits_short(const Stream& stream, const AttentionDims& dims);
/// As `attention_backward_mma`, the same roundings, in one pass.
void attention_backward_short(const Stream& stream, const AttentionGradients& work);

}  // namespace ermoe::cuda
