// Contract of the kernel before the projection; the products are those of ops/kernels/linear.h.
// Read next: ops/cpu/basis_projection.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct CenterRowsDims {
  int64_t rows = 0;   // N
  int64_t width = 0;  // D
};

namespace cpu {

/// y_n = x_n - mean.
template <typename T>
void center_rows(const CenterRowsDims& dims, const T* x /* (N,D) */, const T* mean /* (D) */, T* y /* (N,D) */);

}  // namespace cpu

namespace cuda {

template <typename T>
void center_rows(const Stream& stream, const CenterRowsDims& dims, const T* x, const Master<T>* mean, T* y);

}  // namespace cuda
}  // namespace ermoe
