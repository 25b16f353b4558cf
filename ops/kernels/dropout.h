// Contract of random omission; its backward pass is itself. Read next: ops/cpu/dropout.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"
#include "core/rng.h"

#include <cstdint>

namespace ermoe {

struct DropoutDims {
  int64_t units = 0;  // what is dropped or kept as a whole
  int64_t unit = 1;   // elements of each
  double p = 0;       // probability of being dropped
  int64_t first = 0;  // number of the first unit among those of all ranks
  DrawKey key = RngKey{};
};

/// Whether word `index` % 4 of philox(key, index / 4) keeps the unit of that number.
ERMOE_HD inline bool dropout_keeps(uint32_t word, float p) { return uniform(word) >= p; }

namespace cpu {

/// y (units, unit) (+)= x / (1 - p) for kept units and 0 for dropped ones, whatever their x.
template <typename T>
void dropout(const DropoutDims& dims, const T* x, T* y, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void dropout(const Stream& stream, const DropoutDims& dims, const T* x, T* y, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
