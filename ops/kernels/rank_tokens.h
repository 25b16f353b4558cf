// Contract of the kernels that order tokens by their largest weight. Read next: ops/cpu/rank_tokens.cpp.
#pragma once

#include "core/device.h"
#include "core/rng.h"

#include <cstdint>

namespace ermoe {

struct RankTokensDims {
  int64_t tokens = 0;  // N
  int64_t slots = 0;   // K
};

/// The largest of `slots` weights. A NaN is passed over, so that any two tokens can be compared.
template <typename T>
ERMOE_HD T priority_of(const T* weights, int64_t slots) {
  T best = -INFINITY;
  for (int64_t k = 0; k < slots; ++k)
    if (weights[k] > best) best = weights[k];
  return best;
}

namespace cpu {

/// order: tokens by descending priority, then ascending number.
template <typename T>
void rank_tokens(const RankTokensDims& dims, const T* weights /* (N,K) */, int32_t* order /* (N) */);

}  // namespace cpu

namespace cuda {

/// In float alone; `priorities` (N) is scratch memory.
template <typename T>
void rank_tokens(const Stream& stream, const RankTokensDims& dims, const T* weights, int32_t* order, float* priorities);

}  // namespace cuda
}  // namespace ermoe
