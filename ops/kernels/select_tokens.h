// Contract of select_tokens. Read next: ops/cpu/select_tokens.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct SelectTokensDims {
  int64_t batch = 0, tokens = 0, width = 0;  // B, T, D
};

namespace cpu {

/// y (B, D) = x (B, T, D) at token index[b] of each sequence.
template <typename T>
void select_tokens_forward(const SelectTokensDims& dims, const T* x, const int32_t* index /* (B) */, T* y);

/// dx (B, T, D) (+)= dy (B, D) at those tokens and 0 at the others.
template <typename T>
void select_tokens_backward(const SelectTokensDims& dims, const T* dy, const int32_t* index, T* dx, Accumulate mode);

}  // namespace cpu

namespace cuda {

/// An index outside [0, T) gives a row of NaNs, and no gradient.
template <typename T>
void select_tokens_forward(const Stream& stream, const SelectTokensDims& dims, const T* x, const int32_t* index, T* y);
template <typename T>
void select_tokens_backward(const Stream& stream, const SelectTokensDims& dims, const T* dy, const int32_t* index, T* dx, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
