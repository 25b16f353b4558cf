// Contract of the kernels of the scores' variance over tokens. Read next: ops/cpu/score_variance.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"
#include "ops/kernels/token_weights.h"

#include <cstdint>

namespace ermoe {

struct ScoreVarianceDims {
  int64_t rows = 0;     // N
  int64_t experts = 0;  // E
};

// `weights` (N) as ops/token_weights.h makes them, or null: all 1.

namespace cpu {

/// loss = -Σ_e 1/N Σ_n weight_n (s_ne - mean_e)²; the means, weighted likewise, are kept.
template <typename T>
void score_variance_forward(const ScoreVarianceDims& dims, const T* scores /* (N, E) */, const T* weights, double* means /* (E) */,
                            T* loss /* () */);
/// dscores (+)= -dloss 2/N weight (s - mean).
template <typename T>
void score_variance_backward(const ScoreVarianceDims& dims, const T* scores, const T* weights, const double* means, const T* dloss /* () */,
                             T* dscores, Accumulate mode);

}  // namespace cpu

namespace cuda {

/// Doubles of scratch memory for the forward kernel.
int64_t score_variance_scratch(const ScoreVarianceDims& dims);

// Scores and losses are float on a GPU, whatever the rest of the model computes in.
template <typename T>
void score_variance_forward(const Stream& stream, const ScoreVarianceDims& dims, const T* scores, const T* weights, double* means, T* loss,
                            double* scratch);
template <typename T>
void score_variance_backward(const Stream& stream, const ScoreVarianceDims& dims, const T* scores, const T* weights, const double* means,
                             const T* dloss, T* dscores, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
