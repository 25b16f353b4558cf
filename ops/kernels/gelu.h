// Contract of the GELU kernels. Read next: ops/cpu/gelu.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

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

}  // namespace cuda
}  // namespace ermoe
