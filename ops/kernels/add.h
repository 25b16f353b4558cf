// Contract of addition. Its gradients are dy itself and ops/kernels/column_sum.h.
#pragma once

#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct AddDims {
  int64_t rows = 0, cols = 0;  // one row where nothing is broadcast
};

namespace cpu {

/// y (rows, cols) = x (rows, cols) + b (cols).
template <typename T>
void add_forward(const AddDims& dims, const T* x, const T* b, T* y);

}  // namespace cpu

namespace cuda {

template <typename T>
void add_forward(const Stream& stream, const AddDims& dims, const T* x, const T* b, T* y);

}  // namespace cuda
}  // namespace ermoe
