// Losses of a number against a number (the age of a brain). Read next: ops/balance_loss.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// Scalar mean of |prediction - target|. prediction (B), target (B) of the same dtype, but f32 beside bf16, as is
/// the loss; so for all three.
Variable l1_loss(const ExecContext& ctx, const Variable& prediction, const Tensor& target);

/// Scalar mean of (prediction - target)², without a factor 1/2.
Variable l2_loss(const ExecContext& ctx, const Variable& prediction, const Tensor& target);

/// Scalar mean of d²/2 where |d| <= delta and delta (|d| - delta/2) beyond (Huber 1964); delta > 0, in the target's unit.
Variable huber_loss(const ExecContext& ctx, const Variable& prediction, const Tensor& target, double delta = 1);

}  // namespace ermoe
