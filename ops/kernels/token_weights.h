// Contract of the kernels that make the weights of tokens of which some are padding, and how others read such weights. Read next:
// ops/cpu/token_weights.cpp.
#pragma once

#include "core/device.h"
#include "core/rng.h"

#include <cstdint>

namespace ermoe {

struct TokenWeightsDims {
  int64_t rows = 0;     // N
  int64_t experts = 0;  // E
  int64_t groups = 1;   // G; group g holds rows [g N/G, (g + 1) N/G)

  ERMOE_HD int64_t group_rows() const { return rows / groups; }
};

/// Of row n, where no weights means that all count alike.
template <typename T>
ERMOE_HD double weight_of(const T* weights, int64_t n) {
  return weights == nullptr ? 1.0 : static_cast<double>(weights[n]);
}

/// 1 for a row that counts at all, 0 for padding: for sums that are no means.
template <typename T>
ERMOE_HD double presence_of(const T* weights, int64_t n) {
  return weight_of(weights, n) > 0 ? 1.0 : 0.0;
}

namespace cpu {

/// weights (N): 0 where a row of `allow` (N, E) begins with 0, else the rows of its group over those of them that do not.
template <typename T>
void token_weights(const TokenWeightsDims& dims, const uint8_t* allow, T* weights);

}  // namespace cpu

namespace cuda {

/// In float alone.
template <typename T>
void token_weights(const Stream& stream, const TokenWeightsDims& dims, const uint8_t* allow, T* weights);

}  // namespace cuda
}  // namespace ermoe
