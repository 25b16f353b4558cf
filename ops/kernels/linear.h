// Contract of the affine map's kernels. On a CPU the bias gradient is ops/kernels/column_sum.h. Read next: ops/cpu/linear.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/destination.h"

#include <cstdint>

namespace ermoe {

struct LinearDims {
  int64_t rows = 0, in = 0, out = 0;
};

namespace cpu {

/// y = x Wᵀ + b; b may be null.
template <typename T>
void linear_forward(const LinearDims& dims, const T* x /* (rows, in) */, const T* w /* (out, in) */, const T* b /* (out) */,
                    T* y /* (rows, out) */);

/// dx (+)= dy W.
template <typename T>
void linear_backward_x(const LinearDims& dims, const T* dy, const T* w, T* dx, Accumulate mode);

/// dW (+)= dyᵀ x.
template <typename T>
void linear_backward_w(const LinearDims& dims, const T* dy, const T* x, T* dw, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void linear_forward(const Stream& stream, const LinearDims& dims, const T* x, const T* w, const T* b, T* y);
template <typename T>
void linear_backward_x(const Stream& stream, const LinearDims& dims, const T* dy, const T* w, T* dx, Accumulate mode);
template <typename T>
void linear_backward_w(const Stream& stream, const LinearDims& dims, const T* dy, const T* x, Master<T>* dw, Accumulate mode);

/// dW (+)= dyᵀ x and db (+)= Σ_rows dy, either of which may be unwanted. `scratch` is as large as
/// the partials of a column sum over dy.
template <typename T>
void linear_backward_parameters(const Stream& stream, const LinearDims& dims, const T* dy, const T* x, Destination<Master<T>> dw,
                                Destination<Master<T>> db, float* scratch);

}  // namespace cuda
}  // namespace ermoe
