// The half of a run that depends on what it is trained for: classes, numbers, or images that find their captions. The other half, which is
// the same for all, is tools/session.h and tools/trainer.h.
#pragma once

#include "models/model.h"
#include "models/train_step.h"
#include "tools/engine.h"
#include "tools/evaluation.h"
#include "tools/pipeline.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ermoe {

/// One of a model's towers, with its blocks that route.
struct Tower {
  std::string name;  // empty where there is only one
  int64_t first_block = 0;
  std::vector<MoeLayer*> layers;
};

class Objective {
 public:
  virtual ~Objective() = default;

  /// Of the model's outputs; empty where the model has a loss of its own.
  virtual TargetLoss target_loss() const = 0;
  /// On the device, for dry runs and timing: a micro-batch of so many images, which takes as much work and memory as any.
  virtual MicroBatch noise(int64_t images) const = 0;
  /// What evaluation does with a batch of so many images, without looking at the outcome.
  virtual void try_evaluation(const ExecContext& ctx, int64_t images) const = 0;
  /// The pipeline's evaluation split, `batch` images at a time. Churn is that since the last call.
  virtual Evaluation evaluate(int64_t batch, const EvaluationProgress& progress) = 0;

  /// What one sample is: "an image".
  virtual const char* sample() const = 0;
  virtual std::vector<Tower> towers() const = 0;
  /// What logs call a block with experts: "block3".
  virtual std::string block_name(int64_t block) const = 0;

  /// What an evaluation is judged by, in words: "accuracy 89.17 %".
  virtual std::string figure(const Evaluation& e) const = 0;
  /// Its figures beside the loss, for logs.
  virtual std::vector<std::pair<std::string, double>> values(const Evaluation& e) const = 0;
  /// The figure that checkpoint.best accuracy goes by: the larger, the better.
  virtual double merit(const Evaluation& e) const = 0;
  /// Leaves in a run's folder what its last evaluation says of each sample, where that is kept.
  virtual void write_predictions(const Evaluation&, const std::string& /*run_folder*/) const {}
};

/// Of a run whose settings are complete; all references must outlive it.
std::unique_ptr<Objective> make_objective(const Engine& engine, const RunConfig& config, Model& model, Pipeline& pipeline);

}  // namespace ermoe
