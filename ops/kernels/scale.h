// Contract of the product with a constant; its backward pass is itself.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct ScaleDims {
  int64_t numel = 0;
  double factor = 1;
};

namespace cpu {

/// y (numel) (+)= factor · x.
template <typename T>
void scale(const ScaleDims& dims, const T* x, T* y, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void scale(const Stream& stream, const ScaleDims& dims, const T* x, T* y, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
