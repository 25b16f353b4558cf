// Contract of the combine-weight kernels. Read next: ops/cpu/combine_weights.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

/// From the scores s of a token's filled slots to weights.
enum class CombineRule {
  normalized,  // max(s, 1e-3) / Σ max(s, 1e-3); no gradient to a floored score. With one slot it is 1 whatever s
  softmax,     // softmax(s · exp(temperature))
  raw,         // s itself
};

struct CombineWeightsDims {
  int64_t tokens = 0;   // N
  int64_t experts = 0;  // E
  int64_t slots = 0;    // K
  CombineRule rule = CombineRule::normalized;

  static constexpr double floor = 1e-3;  // of a normalized score
};

/// `threshold` may be null, or minus infinity: both stand for 0; `temperature` is read by softmax alone and may be null otherwise.
template <typename T>
struct CombineWeightsInputs {
  const T* scores;       // (N,E)
  const int32_t* ids;    // (N,K)
  const T* threshold;    // (1)
  const T* temperature;  // (1)
};

namespace cpu {

template <typename T>
void combine_weights_forward(const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, T* w /* (N,K) */);

/// dscores (N,E) (+)= the slots' gradients at their experts, 0 elsewhere.
template <typename T>
void combine_weights_backward_scores(const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, const T* w, const T* dw, T* dscores,
                                     Accumulate mode);

/// dtemperature (1) (+)= Σ over all slots; softmax only.
template <typename T>
void combine_weights_backward_temperature(const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, const T* w, const T* dw,
                                          T* dtemperature, Accumulate mode);

}  // namespace cpu

namespace cuda {

/// Doubles of scratch memory that the temperature's gradient needs.
int64_t combine_weights_scratch(const CombineWeightsDims& dims);

/// Scores and weights are float on a GPU, whatever the rest of the model computes in.
template <typename T>
void combine_weights_forward(const Stream& stream, const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, T* w);
template <typename T>
void combine_weights_backward_scores(const Stream& stream, const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, const T* w,
                                     const T* dw, T* dscores, Accumulate mode);
template <typename T>
void combine_weights_backward_temperature(const Stream& stream, const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in,
                                          const T* w, const T* dw, T* dtemperature, Accumulate mode, double* scratch);

}  // namespace cuda
}  // namespace ermoe
