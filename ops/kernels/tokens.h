// Contract of joining and pooling tokens. Read next: ops/cpu/tokens.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct ConcatDims {
  int64_t batch = 0;
  int64_t prefix = 0;  // elements of the prefix, t·D
  int64_t rest = 0;    // elements of one sequence, T·D
};

struct PoolDims {
  int64_t batch = 0, tokens = 0, width = 0;
  int64_t begin = 0, end = 0;  // the tokens that are averaged
};

namespace cpu {

/// y (batch, prefix + rest): the prefix, then a row of x.
template <typename T>
void concat_tokens_forward(const ConcatDims& dims, const T* prefix /* (prefix) */, const T* x /* (batch, rest) */, T* y);

/// dx (batch, rest) (+)= the later part of each row of dy. The prefix's gradient is a column sum.
template <typename T>
void concat_tokens_backward(const ConcatDims& dims, const T* dy, T* dx, Accumulate mode);

/// dx (batch, prefix + rest) (+)= 0 for the prefix, then a row of dy (batch, rest). The forward pass is concat_tokens_backward.
template <typename T>
void skip_tokens_backward(const ConcatDims& dims, const T* dy, T* dx, Accumulate mode);

/// y (batch, width) = mean over tokens [begin, end) of x (batch, tokens, width).
template <typename T>
void pool_tokens_forward(const PoolDims& dims, const T* x, T* y);

/// dx (+)= dy / (end - begin) for the averaged tokens and 0 for the others.
template <typename T>
void pool_tokens_backward(const PoolDims& dims, const T* dy, T* dx, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void concat_tokens_forward(const Stream& stream, const ConcatDims& dims, const T* prefix, const T* x, T* y);
template <typename T>
void concat_tokens_backward(const Stream& stream, const ConcatDims& dims, const T* dy, T* dx, Accumulate mode);
template <typename T>
void skip_tokens_backward(const Stream& stream, const ConcatDims& dims, const T* dy, T* dx, Accumulate mode);
template <typename T>
void pool_tokens_forward(const Stream& stream, const PoolDims& dims, const T* x, T* y);
template <typename T>
void pool_tokens_backward(const Stream& stream, const PoolDims& dims, const T* dy, T* dx, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
