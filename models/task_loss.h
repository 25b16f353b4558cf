// What training minimises, by the configuration, and what numbers a regression's outputs stand for.
#pragma once

#include "autograd/tape.h"
#include "models/config.h"
#include "ops/bin_targets.h"

#include <span>
#include <vector>

namespace ermoe {

/// The mean loss over a batch: of classes (softmax, sigmoid) or, in a regression, of one number an image. It holds on the device what the
/// configuration says, so that a step uploads nothing.
class TaskLoss {
 public:
  /// Of logits (B, classes) against targets in `dtype`. A number of class weights other than `classes`, in a regression another number of
  /// outputs than `outputs_of`, and a loss.target_scale that nobody knows yet are an InputError.
  TaskLoss(const ExecContext& ctx, const LossConfig& config, int64_t classes, DType dtype);

  /// Scalar, of logits (B, Y) against soft targets (B, Y). In a regression against numbers (B, 1) in their own unit (years): l1, l2 and
  /// huber of outputs (B, 1) in units of the scale; soft_labels of logits (B, bins), the divergence from a normal distribution around
  /// the number.
  Variable operator()(const ExecContext& ctx, const Variable& logits, const Tensor& targets) const;

 private:
  Tensor standardised(const ExecContext& ctx, const Tensor& targets) const;

  LossConfig config_;
  Bins bins_;
  Tensor class_weights_;  // (Y), or undefined: all 1
  Tensor offset_;         // (1): - mean / scale; undefined: targets are taken as they are
};

/// The same for once.
Variable task_loss(const ExecContext& ctx, const LossConfig& config, const Variable& logits, const Tensor& targets);

/// What a regression's outputs (B, Y) mean, in the targets' unit: mean + scale · output; of bins the expectation Σ softmax · middle. One
/// number an image. `outputs` f32 or f64, where the host can read them.
std::vector<double> predicted_numbers(const LossConfig& config, const Tensor& outputs);

/// Of the training targets: fills in loss.target_mean and loss.target_scale (their deviation) where the scale is 0. For soft_labels a
/// target outside of loss.bins is an InputError, and so are no targets at all.
void fit_targets(LossConfig& config, std::span<const double> targets);

/// On the host, for dry runs and timing: targets such as a batch of so many images has. (B, classes) with a random class an image, or in a
/// regression (B, 1) with numbers around the training targets' mean.
Tensor made_targets(const ExecContext& host, const LossConfig& config, int64_t classes, int64_t images);

}  // namespace ermoe
