// How much each chosen expert counts. Read next: ops/combine.h.
#pragma once

#include "autograd/tape.h"
#include "ops/kernels/combine_weights.h"

namespace ermoe {

/// w (N, K) of scores (N, E) at ids (N, K) i32. A missing slot (-1) gets 0. An id from E on is a free expert: its score
/// is `threshold` (1), a constant, 0 where undefined or minus infinity. `temperature` (1) is wanted by softmax alone; gradients to scores
/// and temperature. The ids of a token must differ from one another.
Variable combine_weights(const ExecContext& ctx, const Variable& scores, const Tensor& ids, CombineRule rule, const Tensor& threshold,
                         const Variable& temperature);

}  // namespace ermoe
