// Losses over classes with soft targets. Targets come from ops/soft_targets.h, from a mix of two images, or from a
// distribution over bins; the losses take them as they are. Read next: ops/regression_loss.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// Scalar 1/B Σ_b Σ_y w_y t_by (-log softmax(x_b)_y). logits (B, Y), targets (B, Y) and class_weights (Y) of the same
/// dtype, but f32 beside bf16 logits, as is the loss. Undefined weights are all 1. The divisor is B whatever the weights, so micro-batches
/// of equal size add up. Rows of `targets` need not sum to one: a row scales with its sum, and an all-zero row (a masked sample) costs
/// nothing.
Variable cross_entropy(const ExecContext& ctx, const Variable& logits, const Tensor& targets, const Tensor& class_weights = {});

/// Scalar 1/B Σ_b Σ_y w_y (-t log σ(x) - (1 - t) log(1 - σ(x))): every class is a question of its own. Shapes as above.
Variable sigmoid_cross_entropy(const ExecContext& ctx, const Variable& logits, const Tensor& targets, const Tensor& class_weights = {});

/// Scalar 1/B Σ_b KL(t_b ‖ softmax(x_b)) = Σ_y t (log t - log softmax(x)); 0 log 0 = 0. A row that does not sum to one is
/// taken as it is, and its value is then no divergence (it may be negative).
Variable kl_loss(const ExecContext& ctx, const Variable& logits, const Tensor& targets);

}  // namespace ermoe
