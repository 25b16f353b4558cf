// Contract of the centring around a projection; the products are those of ops/kernels/linear.h. A CPU centres the rows before
// them. A GPU saves that pass over memory: B (x - m) = B x - B m, and the same for the gradient.
// Read next: ops/cpu/basis_projection.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/linear.h"

#include <cstdint>

namespace ermoe {

struct CenterRowsDims {
  int64_t rows = 0;   // N
  int64_t width = 0;  // D
};

namespace cpu {

/// y_n = x_n - mean.
template <typename T>
void center_rows(const CenterRowsDims& dims, const T* x /* (N,D) */, const T* mean /* (D) */, T* y /* (N,D) */);

}  // namespace cpu

namespace cuda {

/// bias + shift = -basis mean (`out`): bias, in T, is what the product can add; shift is what rounding it to T leaves over.
template <typename T>
void center_bias(const Stream& stream, const LinearDims& dims, const T* basis /* (out,in) */, const Master<T>* mean /* (in) */,
                 T* bias /* (out) */, Master<T>* shift /* (out) */);

/// dbasis -= sums meanᵀ, `sums` (out) the sums over rows of the product's gradient: from the gradient for rows as they are to
/// that for centred ones.
template <typename T>
void center_gradient(const Stream& stream, const LinearDims& dims, const Master<T>* sums, const Master<T>* mean, Master<T>* dbasis);

}  // namespace cuda
}  // namespace ermoe
