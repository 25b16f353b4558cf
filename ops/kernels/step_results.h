// Contract of the kernels that gather what a training step has to say, so that it is read once and late. Read next:
// ops/cpu/step_results.cpp.
#pragma once

#include "core/device.h"
#include "core/rng.h"

#include <cmath>
#include <cstdint>

namespace ermoe {

/// Sums over the micro-batches of a step. In memory of the device that steps.
struct StepResults {
  double loss = 0, extra_loss = 0;
  int64_t draws = 0;  // micro-batches since the training began: the number that `DrawKey` folds in
  int32_t fault = 0;  // 1 + the first block whose routing scores were not finite; 0: none
};

/// Some of what one micro-batch left behind.
template <typename T>
struct ResultTerms {
  static constexpr int32_t most = 16;
  double share = 1;         // of the micro-batch in the step
  const T* loss = nullptr;  // (); null: none
  int32_t extras = 0, flags = 0, draws = 0;
  const T* extra[most] = {};            // () each
  const int32_t* nonfinite[most] = {};  // (1) each
  int32_t block[most] = {};             // of each flag, ascending
};

template <typename T>
ERMOE_HD inline void add_terms(const ResultTerms<T>& terms, StepResults& results) {
  if (terms.loss != nullptr) results.loss += terms.share * static_cast<double>(*terms.loss);
  for (int32_t i = 0; i < terms.extras; ++i) results.extra_loss += terms.share * static_cast<double>(*terms.extra[i]);
  for (int32_t i = 0; i < terms.flags; ++i)
    if (results.fault == 0 && *terms.nonfinite[i] > 0) results.fault = 1 + terms.block[i];
  results.draws += terms.draws;
}

/// Whether a step with these results must be refused.
ERMOE_HD inline bool unsound(const StepResults& results) {
#if !defined(__CUDA_ARCH__)
  using std::isfinite;
#endif
  return results.fault != 0 || !isfinite(results.loss);
}

namespace cpu {

/// Sums start at 0; `draws` goes on.
void begin_results(StepResults* results);
template <typename T>
void add_results(const ResultTerms<T>& terms, StepResults* results);
/// *flag = 1 where the step must be refused, else 0.
void flag_faults(const StepResults* results, float* flag /* (1) */);

}  // namespace cpu

namespace cuda {

void begin_results(const Stream& stream, StepResults* results);
/// T = float.
template <typename T>
void add_results(const Stream& stream, const ResultTerms<T>& terms, StepResults* results);
void flag_faults(const Stream& stream, const StepResults* results, float* flag);

}  // namespace cuda
}  // namespace ermoe
