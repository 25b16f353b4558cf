// Contract of the GELU kernels. Read next: ops/cpu/gelu.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"
#include "ops/kernels/column_sum.h"
#include "ops/kernels/destination.h"

#include <cstdint>

namespace ermoe {

struct GeluDims {
  int64_t numel = 0;
};

namespace cpu {

/// y = x Φ(x), Φ the normal distribution function (exact, by erf).
template <typename T>
void gelu_forward(const GeluDims& dims, const T* x /* (numel) */, T* y /* (numel) */);

/// dx (+)= dy (Φ(x) + x φ(x)), φ the normal density.
template <typename T>
void gelu_backward(const GeluDims& dims, const T* x, const T* dy, T* dx, Accumulate mode);

/// The backward pass where y was not kept, in place and in one pass: dx = dy (Φ(x) + x φ(x)) where x was, y = x Φ(x) where dy was.
template <typename T>
void gelu_backward_with_y(const GeluDims& dims, T* x, T* dy);

}  // namespace cpu

namespace cuda {

template <typename T>
void gelu_forward(const Stream& stream, const GeluDims& dims, const T* x, T* y);
template <typename T>
void gelu_backward(const Stream& stream, const GeluDims& dims, const T* x, const T* dy, T* dx, Accumulate mode);

template <typename T>
void gelu_backward_with_y(const Stream& stream, const GeluDims& dims, T* x, T* dy);

/// `gelu_backward_with_y`, and sums (cols) (+)= Σ_rows dx. `partials` is scratch of dims.partials() elements; rows are contiguous.
template <typename T>
void gelu_backward_with_y_and_sums(const Stream& stream, const ColumnSumDims& dims, T* x /* (rows, cols) */, T* dy, Master<T>* partials,
                                   Destination<Master<T>> sums);

}  // namespace cuda
}  // namespace ermoe
