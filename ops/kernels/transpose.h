// Contract of turning matrices over; the gradient is the same kernel. Read next: ops/cpu/transpose.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct TransposeDims {
  int64_t batch = 0;
  int64_t m = 0, n = 0;
};

namespace cpu {

/// y (batch, n, m) (+)= x (batch, m, n), each matrix transposed.
template <typename T>
void transpose(const TransposeDims& dims, const T* x, T* y, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void transpose(const Stream& stream, const TransposeDims& dims, const T* x, T* y, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
