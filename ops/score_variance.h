// A loss that makes a router decide: minus the variance of every expert's score over tokens (the variance loss of Guo et al.,
// "Advancing Expert Specialization for Better MoE", arXiv 2505.22323). Read next: ops/output_overlap.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// Scalar -Σ_e 1/N Σ_n (s_ne - mean_e)², mean_e that of the column. scores (N, E), N, E >= 1; f32 or f64. The gradient is exact: the
/// means move with the scores. `weights` (N) in their dtype: how much each token counts where some are padding, as ops/token_weights.h
/// makes them of one group; undefined: all alike.
Variable score_variance_loss(const ExecContext& ctx, const Variable& scores, const Tensor& weights = {});

}  // namespace ermoe
