// Contract of the bounds on values. Read next: ops/cpu/clamp_values.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct ClampDims {
  int64_t numel = 0;
  double low = 0, high = 0;
};

namespace cpu {

/// t (numel) = min(max(t, low), high), in place.
template <typename T>
void clamp_values(const ClampDims& dims, T* t);

}  // namespace cpu

namespace cuda {

template <typename T>
void clamp_values(const Stream& stream, const ClampDims& dims, T* t);

}  // namespace cuda
}  // namespace ermoe
