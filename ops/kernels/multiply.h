// Contract of the elementwise product, which is its own backward: da = dy · b. Read next: ops/cpu/multiply.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {
namespace cpu {

/// y (+)= a · b, n elements.
template <typename T>
void multiply(int64_t n, const T* a, const T* b, T* y, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void multiply(const Stream& stream, int64_t n, const T* a, const T* b, T* y, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
