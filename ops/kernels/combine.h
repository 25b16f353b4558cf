// Contract of the combine kernels. Read next: ops/cpu/combine.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/destination.h"

#include <cstdint>

namespace ermoe {

struct CombineDims {
  int64_t tokens = 0;  // N
  int64_t slots = 0;   // K
  int64_t width = 0;   // D
  int64_t rows = 0;    // M, of the experts' rows; at most N*K
};

namespace cpu {

/// out_n = Σ_k w_nk y_row(n,k), over the slots of n that have a row.
template <typename T>
void combine_forward(const CombineDims& dims, const T* y /* (M,D) */, const Master<T>* weights /* (N,K) */,
                     const int32_t* slot_row /* (N*K) */, T* out /* (N,D) */);

/// dy_i (+)= w_slot(i) dout_token(i); rows without a slot (-1) count as zero.
template <typename T>
void combine_backward_rows(const CombineDims& dims, const Master<T>* weights, const int32_t* row_slot /* (M) */, const T* dout, T* dy,
                           Accumulate mode);

/// dw_nk (+)= <dout_n, y_row(n,k)>; 0 where the slot is missing.
template <typename T>
void combine_backward_weights(const CombineDims& dims, const T* y, const int32_t* slot_row, const T* dout, Master<T>* dweights,
                              Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void combine_forward(const Stream& stream, const CombineDims& dims, const T* y, const Master<T>* weights, const int32_t* slot_row, T* out);
/// Both gradients in one pass over dout; either may be unwanted.
template <typename T>
void combine_backward(const Stream& stream, const CombineDims& dims, const T* y, const Master<T>* weights, const int32_t* slot_row,
                      const int32_t* row_slot, const T* dout, const Destination<T>& dy, const Destination<Master<T>>& dweights);

}  // namespace cuda
}  // namespace ermoe
