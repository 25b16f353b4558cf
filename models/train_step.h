// One optimizer step: matrices made from their factors, micro-batches forward and backward, gradients reduced over ranks and
// led on to the factors, norm, clipping, the step itself, retraction, running statistics. A step whose gradient is not finite
// is refused whole and says where it went wrong. Read next: models/recorded_step.h, tools/trainer.h.
#pragma once

#include "models/grad_sync.h"
#include "models/model.h"
#include "models/optim.h"
#include "models/step_times.h"
#include "ops/step_results.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace ermoe {

/// Scalar loss of a model output; the mean over the micro-batch.
using LossFn = std::function<Variable(const ExecContext&, const Variable& output)>;

struct StepReport {
  double loss = 0;         // mean task loss over the micro-batches
  double extra_loss = 0;   // balance terms and the like, weighted
  double grad_norm = 0;    // before clipping
  double result_wait = 0;  // seconds that the host waited for the results
  bool accepted = false;
  std::string fault;                  // why not, the same on all ranks: "the gradient of blocks.3.moe.experts.s1 is not finite"
  std::vector<RoutingRecord> routes;  // of the last micro-batch
  StepTimes times;
};

/// How often a step of so many micro-batches writes a gradient before it is read.
constexpr GradWrites grad_writes(int64_t micro_batches) { return micro_batches == 1 ? GradWrites::once : GradWrites::many; }

class TrainStep {
 public:
  /// All references must outlive this. `average` may be null.
  TrainStep(const ExecContext& ctx, Model& model, Optimizer& optimizer, MovingAverage* average, double clip)
      : model_(model), optimizer_(optimizer), average_(average), sync_(ctx, model), clip_(clip) {}

  /// Starts a step of `micro_batches` calls of `micro_batch`: of one alone where the model's gradients are written once.
  void begin(const ExecContext& ctx, int64_t micro_batches);
  /// Forward and backward of one micro-batch. images (B, C, S, S), or volumes (B, C, S, S, S). Random numbers are drawn from
  /// ctx.rng and the number of micro-batches before this one in the whole training.
  void micro_batch(const ExecContext& ctx, const Tensor& images, const LossFn& loss, const Tensor& allow = {});
  /// The same of any model: `loss` is what Model::loss takes.
  void micro_batch(const ExecContext& ctx, const MicroBatch& batch, const TargetLoss& loss);
  /// Finishes the step. A refused one leaves parameters, moments and statistics as they were.
  StepReport finish(const ExecContext& ctx, double lr);

  // `finish` in parts, for who records them. None waits for the device but `report`.
  /// Gradients complete; whether the step may be taken, into the optimizer's state.
  void judge(const ExecContext& ctx);
  /// The step itself, once it is known to be sound.
  void apply(const ExecContext& ctx);
  /// What follows the step, and does no harm after a refused one: values that other ranks stepped, averages.
  void share(const ExecContext& ctx);
  /// What the host must do about a step that it did not run by itself.
  void conclude(bool accepted);
  /// What became of the step. Of several ranks all call it; after a refused one they tell each other what they found.
  StepReport report(const ExecContext& ctx);
  /// Where the decision lies: not 0 where the step is taken. In the device's memory.
  const int32_t* decision() const { return accepted_flag(optimizer_.state()); }
  void set_learning_rate(const ExecContext& ctx, double lr) { optimizer_.set_learning_rate(ctx, lr); }
  /// Micro-batches of the training so far, where it goes on from a checkpoint. Not while a recording of the step lives.
  void set_draws(int64_t draws);
  /// `fn` is told with a literal what the step does from now on: "the forward pass". On a GPU that is what is queued, until the host
  /// waits, in the phase `on_gpu`.
  void on_phase(std::function<void(const char* phase)> fn) { phase_ = std::move(fn); }
  static constexpr const char* on_gpu = "a step on the GPU";

 private:
  void reduce_gradients(const ExecContext& ctx);
  Tensor faults_anywhere(const ExecContext& ctx) const;
  /// Why a step is refused. Those with a lower `place` come earlier in a step and are the cause of others.
  struct Fault {
    int64_t place = 0;
    std::string what;
  };
  Fault find_fault(const ExecContext& ctx, const StepResults& results) const;
  std::string first_fault(const ExecContext& ctx, const StepResults& results) const;

  Model& model_;
  Optimizer& optimizer_;
  MovingAverage* average_;
  GradSync sync_;
  double clip_;
  int64_t micro_batches_ = 1, micro_batches_done_ = 0;
  int64_t first_draw_ = 0;
  Tensor results_;  // StepResults, on the device
  StepReport report_;
  std::function<void(const char*)> phase_ = [](const char*) {};
};

/// The value of a one-element tensor, f32 or f64. Waits for a device.
double scalar_of(const Tensor& t);

}  // namespace ermoe
