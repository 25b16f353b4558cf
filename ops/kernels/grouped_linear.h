// Contract of the grouped GEMMs: E matrix products over consecutive rows whose sizes are known on the device alone.
// Read next: ops/cpu/grouped_linear.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/destination.h"

#include <cstdint>

namespace ermoe {

struct GroupedLinearDims {
  int64_t rows = 0;     // the plan's, of which offsets[E] are filled
  int64_t experts = 0;  // E
  int64_t in = 0;       // I
  int64_t out = 0;      // O
};

namespace cpu {

/// y_i = w_e x_i + b_e for the rows offsets[e] <= i < offsets[e+1]; zeros beyond. b may be null.
template <typename T>
void grouped_linear_forward(const GroupedLinearDims& dims, const T* x /* (rows,I) */, const T* w /* (E,O,I) */, const T* b /* (E,O) */,
                            const int32_t* offsets /* (E+1) */, T* y /* (rows,O) */);

/// dx_i (+)= w_eᵀ dy_i; rows beyond count as zero.
template <typename T>
void grouped_linear_backward_input(const GroupedLinearDims& dims, const T* w, const int32_t* offsets, const T* dy, T* dx, Accumulate mode);

/// dw_e (+)= Σ_i dy_i x_iᵀ over the rows of e.
template <typename T>
void grouped_linear_backward_weight(const GroupedLinearDims& dims, const T* x, const int32_t* offsets, const T* dy, T* dw, Accumulate mode);

/// db_e (+)= Σ_i dy_i over the rows of e.
template <typename T>
void grouped_linear_backward_bias(const GroupedLinearDims& dims, const int32_t* offsets, const T* dy, T* db, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void grouped_linear_forward(const Stream& stream, const GroupedLinearDims& dims, const T* x, const T* w, const T* b, const int32_t* offsets,
                            T* y);
template <typename T>
void grouped_linear_backward_input(const Stream& stream, const GroupedLinearDims& dims, const T* w, const int32_t* offsets, const T* dy,
                                   T* dx, Accumulate mode);

/// Floats of scratch memory that `grouped_linear_backward_weight` wants.
int64_t grouped_linear_backward_scratch(const Stream& stream, const GroupedLinearDims& dims);

/// Both gradients of the parameters, since they read dy together. Either may be unwanted. G: Master<T>, or T where dw is
/// overwritten by sums that are rounded once.
template <typename T, typename G>
void grouped_linear_backward_weight(const Stream& stream, const GroupedLinearDims& dims, const T* x, const int32_t* offsets, const T* dy,
                                    Destination<G> dw, Destination<Master<T>> db, float* scratch);

/// pre = what `grouped_linear_forward` gives, y = gelu(pre).
template <typename T>
void grouped_linear_gelu_forward(const Stream& stream, const GroupedLinearDims& dims, const T* x, const T* w, const T* b,
                                 const int32_t* offsets, T* pre /* (rows,O) */, T* y /* (rows,O) */);

/// (w_eᵀ dy) gelu'(pre) where `pre` was, which went through a GELU into this layer, and y = gelu(pre): both (rows, I).
template <typename T>
void grouped_linear_gelu_backward_input(const Stream& stream, const GroupedLinearDims& dims, const T* w, const int32_t* offsets,
                                        const T* dy, T* pre, T* y);

}  // namespace cuda
}  // namespace ermoe
