// Contract of the kernels that close experts. Read next: ops/cpu/drop_experts.cpp.
#pragma once

#include "core/device.h"
#include "core/rng.h"

#include <cstdint>

namespace ermoe {

struct DropExpertsDims {
  int64_t tokens = 0;   // N
  int64_t experts = 0;  // E
  int64_t cluster = 1;  // experts of one group
  int64_t dropped = 0;  // of them
};

/// True for the experts with the `dropped` smallest numbers of their group: number e of `key` is expert e's, ties to the lower one.
ERMOE_HD inline bool is_dropped(const DropExpertsDims& dims, RngKey key, int64_t expert) {
  const uint32_t own = philox(key, static_cast<uint64_t>(expert)).x[0];
  const int64_t first = expert / dims.cluster * dims.cluster;
  int64_t before = 0;
  for (int64_t e = first; e < first + dims.cluster; ++e) {
    const uint32_t other = philox(key, static_cast<uint64_t>(e)).x[0];
    before += other < own || (other == own && e < expert) ? 1 : 0;
  }
  return before < dims.dropped;
}

namespace cpu {

/// allow = open, or 1 where that is null, but 0 at dropped experts.
void drop_experts(const DropExpertsDims& dims, DrawKey drawn, const uint8_t* open /* (N,E) or null */, uint8_t* allow /* (N,E) */);

}  // namespace cpu

namespace cuda {

/// `closed` (E) is scratch memory.
void drop_experts(const Stream& stream, const DropExpertsDims& dims, DrawKey drawn, const uint8_t* open, uint8_t* allow, uint8_t* closed);

}  // namespace cuda
}  // namespace ermoe
