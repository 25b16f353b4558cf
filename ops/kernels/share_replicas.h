// Contract of the kernels that let replicas take tokens. Read next: ops/cpu/share_replicas.cpp.
#pragma once

#include "core/device.h"
#include "core/rng.h"

#include <cstdint>

namespace ermoe {

struct ReplicaDims {
  int64_t tokens = 0;    // N
  int64_t slots = 0;     // K
  int64_t replicas = 0;  // R
  int64_t first = 0;     // id of the first replica
  int64_t tokens_an_image = 1;
};

/// The id that slot number `slot` has afterwards; of several copies of an expert the first one takes.
template <typename T>
ERMOE_HD int32_t id_with_replicas(const ReplicaDims& dims, const T* replica_of, int64_t slot, int32_t id) {
  int64_t bits = slot / dims.slots % dims.tokens_an_image;
  int odd = 0;
  for (; bits > 0; bits &= bits - 1) odd ^= 1;
  if (id < 0 || odd == 0) return id;
  for (int64_t r = 0; r < dims.replicas; ++r)
    if (static_cast<int32_t>(replica_of[r]) == id) return static_cast<int32_t>(dims.first + r);
  return id;
}

namespace cpu {

/// shared[slot] = id_with_replicas of ids[slot].
template <typename T>
void share_replicas(const ReplicaDims& dims, const int32_t* ids /* (N, K) */, const T* replica_of /* (R) */, int32_t* shared /* (N, K) */);

}  // namespace cpu

namespace cuda {

/// In float alone.
template <typename T>
void share_replicas(const Stream& stream, const ReplicaDims& dims, const int32_t* ids, const T* replica_of, int32_t* shared);

}  // namespace cuda
}  // namespace ermoe
