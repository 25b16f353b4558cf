// What a training step has to say (loss, added terms, faults), gathered where it was computed: nothing here waits for a device
// but `read_step_results`. Read next: ops/kernels/step_results.h, models/train_step.h.
#pragma once

#include "core/context.h"
#include "ops/kernels/step_results.h"

#include <utility>
#include <vector>

namespace ermoe {

/// What a micro-batch left on its device.
struct MicroBatchResults {
  double share = 1;                                   // of it in the step
  Tensor loss;                                        // ()
  std::vector<Tensor> extra;                          // () each, of the loss's dtype
  std::vector<std::pair<int64_t, Tensor>> nonfinite;  // block, (1) i32: not 0 where its routing scores were not finite
};

/// `StepResults` in the context's memory, as u8, after `draws` micro-batches.
Tensor make_step_results(const ExecContext& ctx, int64_t draws = 0);
/// Its copy on the host. Waits for the device.
StepResults read_step_results(const Tensor& results);
/// Where the number of micro-batches lies: for ExecContext::draw.
const int64_t* draw_number(const Tensor& results);

/// Starts the sums of a step.
void begin_results(const ExecContext& ctx, const Tensor& results);
/// Adds a micro-batch and counts it.
void add_results(const ExecContext& ctx, const MicroBatchResults& micro_batch, const Tensor& results);
/// flag (1) f32 = 1 where the step must be refused: a loss or routing scores that are not finite.
void flag_faults(const ExecContext& ctx, const Tensor& results, const Tensor& flag);

}  // namespace ermoe
