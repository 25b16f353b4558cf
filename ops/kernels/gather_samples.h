// Contract of the kernels that pick samples by index, whatever a sample holds. Read next: ops/cpu/gather_samples.cpp.
#pragma once

#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct GatherSamplesDims {
  int64_t samples = 0;  // n
  int64_t batch = 0;    // B
  int64_t bytes = 0;    // of one sample
};

namespace cpu {

/// picked_b = samples_indices(b); zeros where the index is outside [0, n).
void gather_samples(const GatherSamplesDims& dims, const uint8_t* samples /* (n, bytes) */, const int32_t* indices /* (B) */,
                    uint8_t* picked /* (B, bytes) */);

}  // namespace cpu

namespace cuda {

void gather_samples(const Stream& stream, const GatherSamplesDims& dims, const uint8_t* samples, const int32_t* indices, uint8_t* picked);

}  // namespace cuda
}  // namespace ermoe
