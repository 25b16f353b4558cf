// Contract of the upper bound. Read next: ops/cpu/at_most.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct AtMostDims {
  int64_t numel = 0;
  double bound = 0;
};

namespace cpu {

/// y (numel) = min(x, bound).
template <typename T>
void at_most_forward(const AtMostDims& dims, const T* x, T* y);

/// dx (+)= dy where x < bound.
template <typename T>
void at_most_backward(const AtMostDims& dims, const T* x, const T* dy, T* dx, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void at_most_forward(const Stream& stream, const AtMostDims& dims, const T* x, T* y);
template <typename T>
void at_most_backward(const Stream& stream, const AtMostDims& dims, const T* x, const T* dy, T* dx, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
