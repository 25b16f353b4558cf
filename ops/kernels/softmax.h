// Contract of the softmax kernels. Read next: ops/cpu/softmax.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct SoftmaxDims {
  int64_t rows = 0, cols = 0;
};

namespace cpu {

/// y = exp(x - max) / Σ exp(x - max), row by row.
template <typename T>
void softmax_forward(const SoftmaxDims& dims, const T* x /* (rows, cols) */, T* y);

/// dx (+)= y (dy - Σ dy y).
template <typename T>
void softmax_backward(const SoftmaxDims& dims, const T* y, const T* dy, T* dx, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void softmax_forward(const Stream& stream, const SoftmaxDims& dims, const T* x, T* y);
template <typename T>
void softmax_backward(const Stream& stream, const SoftmaxDims& dims, const T* y, const T* dy, T* dx, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
