// Trains a TinyModel on its own four images.
#pragma once

#include "tests/models/tiny_model.h"

namespace ermoe::testing {

class TinyTraining {
 public:
  explicit TinyTraining(TinyModel& tiny, const OptimConfig& config = {}, MovingAverage* average = nullptr)
      : tiny_(tiny),
        config_(config),
        optimizer_(tiny.bench.ctx, tiny.model.arena(), config, stiefel_method(tiny.model.config().moe.orthogonality)),
        step_(tiny.bench.ctx, tiny.model, optimizer_, average, config.clip) {}

  StepReport step(int64_t micro_batches = 1) {
    return step_with(micro_batches, [this](const ExecContext& ctx, const Variable& logits, const Tensor& targets) {
      return tiny_.loss_of(ctx, logits, targets);
    });
  }

  template <typename Loss>
  StepReport step_with(int64_t micro_batches, Loss&& loss) {
    const int64_t part = tiny_.images.shape()[0] / micro_batches;
    step_.begin(tiny_.bench.ctx, micro_batches);
    for (int64_t i = 0; i < micro_batches; ++i) {
      const Tensor targets = tiny_.targets.slice(i * part, (i + 1) * part);
      step_.micro_batch(
          tiny_.bench.ctx, tiny_.images.slice(i * part, (i + 1) * part),
          [&](const ExecContext& ctx, const Variable& logits) { return loss(ctx, logits, targets); }, tiny_.allow);
    }
    return step_.finish(tiny_.bench.ctx, config_.lr);
  }

  /// Parameters, statistics and moments.
  Snapshot state() {
    Snapshot all = tiny_.values();
    optimizer_.visit_state([&](const std::string& name, const Tensor& t) { all[name] = t.clone(); });
    return all;
  }

  Optimizer& optimizer() { return optimizer_; }
  TrainStep& train_step() { return step_; }

 private:
  TinyModel& tiny_;
  OptimConfig config_;
  Optimizer optimizer_;
  TrainStep step_;
};

}  // namespace ermoe::testing
