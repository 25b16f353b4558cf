// Contract of the row normalisation. Read next: ops/cpu/l2_normalize.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct L2NormalizeDims {
  int64_t rows = 0, cols = 0;
  double eps = 0;
};

namespace cpu {

/// norm = ‖x‖ of each row, y = x / max(norm, eps).
template <typename T>
void l2_normalize_forward(const L2NormalizeDims& dims, const T* x /* (rows, cols) */, T* y, Master<T>* norm /* (rows) */);

/// dx (+)= (dy - y Σ dy y) / norm, and dy / eps where norm < eps.
template <typename T>
void l2_normalize_backward(const L2NormalizeDims& dims, const T* y, const Master<T>* norm, const T* dy, T* dx, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void l2_normalize_forward(const Stream& stream, const L2NormalizeDims& dims, const T* x, T* y, Master<T>* norm);
template <typename T>
void l2_normalize_backward(const Stream& stream, const L2NormalizeDims& dims, const T* y, const Master<T>* norm, const T* dy, T* dx,
                           Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
