// One optimizer step: micro-batches forward and backward, gradients reduced over ranks and led on to the factors, norm,
// clipping, the step itself, retraction, refreshed weights, running statistics. A step whose gradient is not finite is
// refused whole and says where it went wrong. Read next: tools/trainer.h.
#pragma once

#include "models/optim.h"
#include "models/step_times.h"
#include "models/vit.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ermoe {

/// Scalar loss of a model output; the mean over the micro-batch.
using LossFn = std::function<Variable(const ExecContext&, const Variable& output)>;

struct StepReport {
  double loss = 0;        // mean task loss over the micro-batches
  double extra_loss = 0;  // balance terms and the like, weighted
  double grad_norm = 0;   // before clipping
  bool accepted = false;
  std::string fault;                  // why not: "the gradient of blocks.3.moe.experts.s1 is not finite"
  std::vector<RoutingRecord> routes;  // of the last micro-batch
  StepTimes times;
};

class TrainStep {
 public:
  /// All references must outlive this. `average` may be null.
  TrainStep(Vit& model, Optimizer& optimizer, MovingAverage* average, double clip)
      : model_(model), optimizer_(optimizer), average_(average), clip_(clip) {}

  /// Starts a step of `micro_batches` calls of `micro_batch`.
  void begin(int64_t micro_batches);
  /// Forward and backward of one micro-batch. images (B, C, S, S).
  void micro_batch(const ExecContext& ctx, const Tensor& images, const LossFn& loss, const Tensor& allow = {});
  /// Finishes the step. A refused one leaves parameters, moments and statistics as they were.
  StepReport finish(const ExecContext& ctx, double lr);

 private:
  /// What a micro-batch left on the device.
  struct Unread {
    Tensor loss;
    std::vector<Tensor> extra;
    std::vector<std::pair<int64_t, Tensor>> nonfinite;  // block, flag
  };

  void reduce_gradients(const ExecContext& ctx);
  void read_results();
  Tensor faults_anywhere(const ExecContext& ctx) const;
  std::string find_fault(const ExecContext& ctx) const;
  void apply(const ExecContext& ctx);

  Vit& model_;
  Optimizer& optimizer_;
  MovingAverage* average_;
  double clip_;
  int64_t micro_batches_ = 1;
  std::vector<Unread> unread_;
  StepReport report_;
};

/// The value of a one-element tensor, f32 or f64. Waits for a device.
double scalar_of(const Tensor& t);

}  // namespace ermoe
