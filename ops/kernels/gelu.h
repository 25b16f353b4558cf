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

}  // namespace cpu

namespace cuda {

template <typename T>
void gelu_forward(const Stream& stream, const GeluDims& dims, const T* x, T* y);
template <typename T>
void gelu_backward(const Stream& stream, const GeluDims& dims, const T* x, const T* dy, T* dx, Accumulate mode);

/// The backward pass in place, dy *= Φ(x) + x φ(x), and sums (cols) (+)= Σ_rows of what it wrote. `partials` is scratch of
/// dims.partials() elements; rows are contiguous.
template <typename T>
void gelu_backward_sums(const Stream& stream, const ColumnSumDims& dims, const T* x /* (rows, cols) */, T* dy, Master<T>* partials,
                        Destination<Master<T>> sums);

}  // namespace cuda
}  // namespace ermoe
