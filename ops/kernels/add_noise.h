// Contract of the noise kernel. Read next: ops/cpu/add_noise.cpp.
#pragma once

#include "core/device.h"
#include "core/rng.h"

#include <cstdint>

namespace ermoe {

struct AddNoiseDims {
  int64_t numel = 0;
  double deviation = 0;
  int64_t first = 0;  // number of the first element among those of all ranks
};

namespace cpu {

/// y_i = x_i + deviation normal(key, first + i), key what `drawn` resolves to.
template <typename T>
void add_noise(const AddNoiseDims& dims, DrawKey drawn, const T* x /* (numel) */, T* y /* (numel) */);

}  // namespace cpu

namespace cuda {

/// In float alone.
template <typename T>
void add_noise(const Stream& stream, const AddNoiseDims& dims, DrawKey drawn, const T* x, T* y);

}  // namespace cuda
}  // namespace ermoe
