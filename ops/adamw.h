// Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101), in place and off the tape, and what an optimizer
// needs around it: the gradient norm, clipping, the refusal of unsound steps, the moving average of weights. Nothing here waits
// for a device but `read_step_state`. Read next: ops/kernels/adamw.h, models/optim.h.
#pragma once

#include "core/context.h"
#include "ops/kernels/adamw.h"

#include <span>
#include <vector>

namespace ermoe {

/// Steps p in place by given numbers; all tensors have p's shape. `step.numel` is filled in here.
void adamw_step(const ExecContext& ctx, AdamDims step, const Tensor& p, const Tensor& g, const Tensor& m, const Tensor& v);

/// Σ t² as f64 (), on t's device; t in a compute dtype. Not finite where any element is not.
Tensor squared_norm(const ExecContext& ctx, const Tensor& t);

/// average = decay · average + (1 - decay) · x.
void moving_average(const ExecContext& ctx, double decay, const Tensor& x, const Tensor& average);

/// A `StepState` in the context's memory after `steps` steps, as u8 (sizeof(StepState)).
Tensor make_step_state(const ExecContext& ctx, int64_t steps = 0);
/// Its copy on the host. Waits for the device.
StepState read_step_state(const Tensor& state);

/// Where it says whether the step is taken: not 0 if so. In the device's memory.
const int32_t* accepted_flag(const Tensor& state);

/// Sets the rate of the steps to come. Queued: a graph of the rest of the step may follow it.
void set_learning_rate(const ExecContext& ctx, double lr, const Tensor& state);
/// Takes the next step, or refuses it: where the norm of all `gradients`, those of the other ranks too, is not finite, or `faults` (any
/// shape, f32, may be undefined) is not 0 all over. Clips to the norm `clip`; 0: not at all.
void judge_step(const ExecContext& ctx, const AdamRule& rule, double clip, std::span<const Tensor> gradients, const Tensor& faults,
                const Tensor& state);
/// Takes the next step with these numbers, whatever the gradients are.
void accept_step(const ExecContext& ctx, const AdamRule& rule, double lr, double grad_scale, const Tensor& state);

/// The direction of Adam times the rate, for a parameter that steps on a manifold; 0 where the step is refused. `direction` is of the
/// moments' dtype or, where that is f32, bf16; so is g, which a CPU takes in the moments' alone.
void adam_direction(const ExecContext& ctx, const AdamRule& rule, const Tensor& state, double lr_scale, const Tensor& g, const Tensor& m,
                    const Tensor& v, const Tensor& direction);
/// The average after the state's step; `decay` is approached from below in the first steps.
void moving_average(const ExecContext& ctx, double decay, const Tensor& state, const Tensor& x, const Tensor& average);

/// A parameter and what is kept about it, all of one shape and dtype but `compute`, the bf16 twin that ops read or undefined.
struct AdamwEntry {
  Tensor p, g, m, v, compute;
  double lr_scale = 1, decay = 0;
};

/// Parameters that are stepped together, on a GPU by one launch.
class AdamwTable {
 public:
  AdamwTable() = default;
  /// The tensors must outlive this. Waits for the device once.
  AdamwTable(const ExecContext& ctx, DType dtype, std::span<const AdamwEntry> entries);
  /// Steps every entry by the state's step and refreshes its twin, unless the step is refused.
  void step(const ExecContext& ctx, const AdamRule& rule, const Tensor& state) const;

 private:
  DType dtype_ = DType::f32;
  int64_t row_count_ = 0, piece_count_ = 0;
  Tensor rows_, pieces_;  // u8: AdamwRow, AdamwPiece
};

}  // namespace ermoe
