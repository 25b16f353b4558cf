// What training minimises, by the configuration.
#pragma once

#include "autograd/tape.h"
#include "models/config.h"

namespace ermoe {

/// The mean loss over a batch of logits (B, Y) against soft targets (B, Y). Class weights are those of the configuration;
/// a number of them other than Y is an InputError.
Variable task_loss(const ExecContext& ctx, const LossConfig& config, const Variable& logits, const Tensor& targets);

}  // namespace ermoe
