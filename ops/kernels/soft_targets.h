// Contract of the label-smoothing kernel. Read next: ops/cpu/soft_targets.cpp.
#pragma once

#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct SoftTargetsDims {
  int64_t batch = 0;    // B
  int64_t classes = 0;  // Y
  double smoothing = 0;
};

namespace cpu {

/// targets (B, Y) = (1 - smoothing) one-hot(labels) + smoothing/Y. Throws on a label outside [0, Y).
template <typename T>
void soft_targets(const SoftTargetsDims& dims, const int32_t* labels /* (B) */, T* targets);

}  // namespace cpu

namespace cuda {

/// A label outside [0, Y), which a kernel cannot throw about, makes its row NaN, and with it the loss.
template <typename T>
void soft_targets(const Stream& stream, const SoftTargetsDims& dims, const int32_t* labels, T* targets);

}  // namespace cuda
}  // namespace ermoe
