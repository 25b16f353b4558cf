// Contract of the dispatch kernels. Read next: ops/cpu/dispatch.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct DispatchDims {
  int64_t tokens = 0;  // N
  int64_t slots = 0;   // K
  int64_t width = 0;   // D
  int64_t rows = 0;    // M, of the experts' rows
};

namespace cpu {

/// y_i = x_token(i); a row whose token is -1 becomes zero.
template <typename T>
void dispatch_forward(const DispatchDims& dims, const T* x /* (N,D) */, const int32_t* row_token /* (M) */, T* y /* (M,D) */);

/// dx_n (+)= Σ_k dy_row(n,k), over the slots of n that have a row.
template <typename T>
void dispatch_backward(const DispatchDims& dims, const int32_t* slot_row /* (N*K) */, const T* dy, T* dx, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void dispatch_forward(const Stream& stream, const DispatchDims& dims, const T* x, const int32_t* row_token, T* y);
template <typename T>
void dispatch_backward(const Stream& stream, const DispatchDims& dims, const int32_t* slot_row, const T* dy, T* dx, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
