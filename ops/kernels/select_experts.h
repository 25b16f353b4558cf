// Contract of the selection kernel. Read next: ops/cpu/select_experts.cpp.
#pragma once

#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct SelectDims {
  int64_t tokens = 0;        // N
  int64_t experts = 0;       // E, scored
  int64_t slots = 0;         // K
  int64_t free_experts = 0;  // ids E, E+1, …
  int64_t first_token = 0;   // tokens of the batch before these, on other ranks
};

/// See `select_experts` for the rules. `order` may be `scores`; `threshold` and `allow` may be null.
template <typename T>
struct SelectInputs {
  const T* scores;       // (N,E)
  const T* order;        // (N,E)
  const T* threshold;    // (1)
  const uint8_t* allow;  // (N,E)
};

struct SelectOutputs {
  int32_t* ids;        // (N,K)
  uint8_t* fallback;   // (N,K)
  int32_t* nonfinite;  // (1)
};

namespace cpu {

template <typename T>
void select_experts(const SelectDims& dims, const SelectInputs<T>& in, const SelectOutputs& out);

}  // namespace cpu

namespace cuda {

/// Scores are float on a GPU, whatever the rest of the model computes in.
template <typename T>
void select_experts(const Stream& stream, const SelectDims& dims, const SelectInputs<T>& in, const SelectOutputs& out);

}  // namespace cuda
}  // namespace ermoe
