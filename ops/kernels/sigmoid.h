// Contract of the logistic function. Read next: ops/cpu/sigmoid.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct SigmoidDims {
  int64_t numel = 0;
};

namespace cpu {

/// y (numel) = 1 / (1 + exp(-x)).
template <typename T>
void sigmoid_forward(const SigmoidDims& dims, const T* x, T* y);

/// dx (+)= dy y (1 - y).
template <typename T>
void sigmoid_backward(const SigmoidDims& dims, const T* y, const T* dy, T* dx, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void sigmoid_forward(const Stream& stream, const SigmoidDims& dims, const T* x, T* y);
template <typename T>
void sigmoid_backward(const Stream& stream, const SigmoidDims& dims, const T* y, const T* dy, T* dx, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
