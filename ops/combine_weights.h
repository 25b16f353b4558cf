// How much each chosen expert counts. Read next: ops/combine.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// From the scores s of a token's filled slots to weights.
enum class CombineRule {
  normalized,  // max(s, 1e-3) / Σ max(s, 1e-3); no gradient to a floored score. With one slot it is 1 whatever s
  softmax,     // softmax(s · exp(temperature))
  raw,         // s itself
};

/// w (N, K) of scores (N, E) at ids (N, K) i32. A missing slot (-1) gets 0. An id from E on is a free expert: its score
/// is `threshold` (1), a constant, 0 where undefined. `temperature` (1) is wanted by softmax alone; gradients to scores
/// and temperature. The ids of a token must differ from one another.
Variable combine_weights(const ExecContext& ctx, const Variable& scores, const Tensor& ids, CombineRule rule, const Tensor& threshold,
                         const Variable& temperature);

}  // namespace ermoe
