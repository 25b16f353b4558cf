// The optimizer: AdamW on flat parameters, Adam on the Stiefel manifold for orthonormal ones, the learning-rate
// schedule, and the moving average of weights. Read next: models/train_step.h.
#pragma once

#include "autograd/memory/parameter_arena.h"
#include "core/context.h"
#include "models/config.h"
#include "models/direct_buckets.h"
#include "models/module.h"
#include "ops/adamw.h"
#include "ops/orthogonal_step.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace ermoe {

/// Learning rate of step `step` (0-based) of `total`: linear warm-up from 0, the schedule down to min_lr, and at the end
/// a linear cool-down to min_lr. rsqrt: lr · sqrt(w / max(step, w)), w the warm-up or 1.
double learning_rate(const OptimConfig& config, int64_t step, int64_t total);

class Optimizer {
 public:
  /// State for every parameter that is neither derived nor frozen; of direct ones for what this rank steps of them alone
  /// (models/direct_buckets.h): what it did not step it must gather after a step. `arena` must outlive this. `together`: up to how many
  /// elements orthonormal factors of one shape are stepped as one batch; left out: what suits the device.
  Optimizer(const ExecContext& ctx, ParameterArena& arena, const OptimConfig& config, StiefelMethod method,
            std::optional<int64_t> together = {});

  /// One step with the arena's gradients scaled by `grad_scale`. Here and below factors must have theirs
  /// (ParameterArena::take_factor_gradients).
  void step(const ExecContext& ctx, double lr, double grad_scale);

  /// The same in three calls, none of which waits for the device. First, outside a graph: the rate of the step.
  void set_learning_rate(const ExecContext& ctx, double lr) { ermoe::set_learning_rate(ctx, lr, state_); }
  /// Then the norm of the arena's gradients, the clipping to `clip` (0: none) and whether the step is taken: not where the
  /// norm is not finite or `faults` (any shape, f32, may be undefined) is not 0 all over.
  void judge(const ExecContext& ctx, double clip, const Tensor& faults);
  /// Then the step. After a refusal it would retract orthonormal factors once more: do not call it then.
  void step(const ExecContext& ctx);
  /// What was decided. `read_step_state` waits for it.
  const Tensor& state() const { return state_; }

  /// How many calls step all orthonormal factors.
  int64_t batches() const { return std::ssize(batches_); }
  /// Bytes of the factors that the largest of these calls steps; 0 where there are none.
  size_t largest_batch_bytes() const;

  /// Seconds of the last step that went into steps on the Stiefel manifold.
  double orthogonal_seconds() const { return orthogonal_seconds_; }

  /// Steps taken: the t of Adam's bias correction.
  int64_t steps() const { return read_step_state(state_).steps; }
  void set_steps(int64_t steps);
  /// Moments of a parameter, or of the part of a direct one that this rank steps.
  struct Slot {
    Parameter* parameter;
    int64_t first;  // its first element of the parameter
    Tensor m, v;    // undefined: another rank has them
  };
  /// All ranks list the same parts, in an order that may differ.
  const std::vector<Slot>& slots() const { return slots_; }
  /// Every moment tensor of this rank: ("blocks.0.attn.qkv.weight.m", tensor).
  void visit_state(const std::function<void(const std::string&, const Tensor&)>& fn) const;

 private:
  /// Gradients of orthonormal factors that count for the norm: some of a group.
  struct Counted {
    const FactorGroup* group;
    int64_t first, count;
  };
  /// Orthonormal parameters of one shape and rate that lie side by side in memory, as one batch of matrices.
  struct Batch {
    Tensor value, m, v;  // (matrices, rows, cols)
    Tensor twin;         // alike, or undefined
    const FactorGroup* group = nullptr;
    int64_t at = 0;  // its first element of the group
    double lr_scale = 1;
    Tensor grad() const { return group->grad.window(at, value.shape()); }
  };
  AdamwEntry entry_of(const Slot& slot, double weight_decay) const;
  std::vector<AdamwEntry> step_direct(const ExecContext& ctx, double weight_decay);
  void count_factors(bool common);
  void make_batches(const Tensor& m, const Tensor& v, int64_t most_elements);
  void step_orthonormal(const ExecContext& ctx, const Batch& batch);

  ParameterArena& arena_;
  std::vector<Tensor> direct_gradients_;  // windows of the arena's: what this rank steps, and factors that are not orthonormal
  std::vector<Counted> factor_gradients_;
  StiefelMethod method_;
  AdamRule rule_;
  std::vector<Slot> slots_;
  std::vector<Batch> batches_;  // of the slots that are orthonormal
  AdamwTable table_;            // of the slots that are not orthonormal
  Tensor state_;                // StepState, on the device
  double orthogonal_seconds_ = 0;
};

/// Averages of the trained values, made after the retraction.
class MovingAverage {
 public:
  /// Starts from the current values.
  MovingAverage(const ExecContext& ctx, ParameterArena& arena, double decay);
  /// After the step that `state` tells of; nothing after a refused one.
  void update(const ExecContext& ctx, const Tensor& state);
  /// ("blocks.0.attn.qkv.weight", tensor) for every trained parameter.
  void visit(const std::function<void(const Parameter&, const Tensor&)>& fn) const;

  /// The routing statistics of a model with these averages, by the names of its buffers, where somebody took them (models/average.h): they
  /// go into checkpoints, so that who uses the averages later needs no training data. The next step makes them wrong: drop them then.
  const std::vector<Buffer>& statistics() const { return statistics_; }
  void keep_statistics(std::vector<Buffer> statistics) { statistics_ = std::move(statistics); }
  void drop_statistics() { statistics_.clear(); }

 private:
  ParameterArena& arena_;
  std::vector<Buffer> statistics_;
  double decay_;
  Tensor direct_, factor_;  // as the arena's sections
};

/// The window of `section` that lies where `p`'s value lies in the arena's section of its role.
Tensor section_window(const ParameterArena& arena, const Tensor& section, const Parameter& p);

}  // namespace ermoe
