// Runs training steps: op by op on a CPU; on a GPU recorded as one CUDA graph and replayed, since a step is thousands of
// launches and none of them needs the host. Read first: models/train_step.h.
#pragma once

#include "cuda/factory.h"
#include "models/train_step.h"

#include <functional>
#include <memory>
#include <vector>

namespace ermoe {

class RecordedStep {
 public:
  /// `step`, and `gpu` where there is one, must outlive this. Without a GPU nothing is recorded.
  RecordedStep(TrainStep& step, Gpu* gpu, TargetLoss loss) : step_(step), gpu_(gpu), loss_(std::move(loss)) {}

  /// One step over the micro-batches next(0) … next(micro_batches - 1), with random numbers drawn from ctx.rng. On a GPU the
  /// first steps of a shape run op by op, the third is recorded, and from then on replayed until a shape changes; then it starts
  /// again. Bit for bit it makes no difference.
  ///
  /// ctx's memory must serve training steps alone: recorded work goes on using it, in the mode and with the allocator of the step
  /// that was recorded. Memory that is given back at once (CachingAllocator::exact) cannot be recorded over: then nothing is.
  /// `meanwhile`, if given, runs on the host after everything is queued and before it waits for the result.
  StepReport run(const ExecContext& ctx, int64_t micro_batches, const std::function<MicroBatch(int64_t)>& next, double lr,
                 const std::function<void()>& meanwhile = {});

  /// Whether steps are replayed by now.
  bool recorded() const { return recording_ != nullptr; }

  /// Lets go of what was recorded and of the memory that it uses; the next step is recorded anew.
  void forget();

 private:
  StepReport run_ops(const ExecContext& ctx, MicroBatch first, int64_t micro_batches, const std::function<MicroBatch(int64_t)>& next,
                     double lr, const std::function<void()>& meanwhile);
  void micro_batch(const ExecContext& ctx, int64_t number, const MicroBatch& batch);
  void record(const ExecContext& ctx);
  bool lost_anywhere(const ExecContext& ctx) const;
  bool fits(const ExecContext& ctx, const MicroBatch& first, int64_t micro_batches) const;

  static constexpr int64_t steps_before = 2;  // op by op: libraries load, memory is taken, algorithms are chosen

  TrainStep& step_;
  Gpu* gpu_;
  TargetLoss loss_;
  std::vector<MicroBatch> inputs_;    // what recorded work reads
  RngKey rng_;                        // what it draws from
  std::shared_ptr<const void> kept_;  // the cache that holds what recorded work uses between its first kernel and its last
  std::unique_ptr<Recording> recording_;
  int64_t seen_ = 0;  // steps of these inputs' shapes
};

}  // namespace ermoe
