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

/// dW (+)= dyᵀ x and db (+)= Σ_rows dy, which may come out of one reading of dy. Either may be unwanted. `scratch` has
/// `linear_backward_scratch` floats.
template <typename T>
void linear_backward_parameters(const Stream& stream, const LinearDims& dims, const T* dy, const T* x, Destination<Master<T>> dw,
                                Destination<Master<T>> db, float* scratch);
int64_t linear_backward_scratch(const Stream& stream, const LinearDims& dims);

/// pre = x Wᵀ + b, y = gelu(pre).
template <typename T>
void linear_gelu_forward(const Stream& stream, const LinearDims& dims, const T* x, const T* w, const T* b, T* pre, T* y);
/// (dy W) gelu'(pre) where `pre` was, and y = gelu(pre), both (rows, in), in one product. False, and nothing is done, where that
/// is not faster than two steps.
template <typename T>
bool linear_gelu_backward_x(const Stream& stream, const LinearDims& dims, const T* dy, const T* w, T* pre, T* y);

}  // namespace cuda
}  // namespace ermoe
