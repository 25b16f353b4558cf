// What training minimises, by the configuration.
#pragma once

#include "autograd/tape.h"
#include "models/config.h"

namespace ermoe {

/// The mean loss over a batch: of classes (softmax, sigmoid) or, in a regression, of one number an image. It holds the configuration's
/// class weights on the device, so that a step uploads nothing.
class TaskLoss {
 public:
  /// Of logits (B, classes) against targets in `dtype`. A number of class weights other than `classes`, and a regression with
  /// more than one output, are an InputError.
  TaskLoss(const ExecContext& ctx, const LossConfig& config, int64_t classes, DType dtype);

  /// Scalar, of logits (B, Y) against soft targets (B, Y); in a regression, of outputs (B, 1) against numbers (B, 1).
  Variable operator()(const ExecContext& ctx, const Variable& logits, const Tensor& targets) const;

 private:
  LossKind kind_;
  double delta_;
  Tensor class_weights_;  // (Y), or undefined: all 1
};

/// The same for once.
Variable task_loss(const ExecContext& ctx, const LossConfig& config, const Variable& logits, const Tensor& targets);

}  // namespace ermoe
