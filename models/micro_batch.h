// What a model is given: the inputs of a forward pass, and those of a training step with their targets. Read next: models/model.h.
#pragma once

#include "autograd/variable.h"
#include "core/context.h"

#include <functional>

namespace ermoe {

/// One micro-batch of a training step. Undefined: what the model has no use for.
struct MicroBatch {
  Tensor images;       // (B, C, S, S), or (B, C, S, S, S) for volumes
  Tensor targets;      // as the loss takes them
  Tensor allow = {};   // (B·T, E) u8: which experts a token of an image may go to; undefined: all
  Tensor tokens = {};  // (B, W) i32: a caption an image
};

/// The same without targets.
struct ModelInput {
  Tensor images;
  Tensor allow = {};
  Tensor tokens = {};
};

/// Scalar loss of a model output against targets; the mean over the micro-batch.
using TargetLoss = std::function<Variable(const ExecContext&, const Variable& output, const Tensor& targets)>;

}  // namespace ermoe
