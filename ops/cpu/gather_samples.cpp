// Picking samples on the CPU: a copy each.
#include "ops/kernels/gather_samples.h"

#include <cstring>

namespace ermoe::cpu {

void gather_samples(const GatherSamplesDims& dims, const uint8_t* samples, const int32_t* indices, uint8_t* picked) {
  const auto bytes = static_cast<size_t>(dims.bytes);
  if (bytes == 0) return;
#pragma omp parallel for schedule(static) if (dims.batch * dims.bytes > 262144)
  for (int64_t b = 0; b < dims.batch; ++b) {
    uint8_t* to = picked + b * dims.bytes;
    if (indices[b] >= 0 && indices[b] < dims.samples)
      std::memcpy(to, samples + indices[b] * dims.bytes, bytes);
    else
      std::memset(to, 0, bytes);
  }
}

}  // namespace ermoe::cpu
