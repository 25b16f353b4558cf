// Metrics of a model on an evaluation split: accuracy, loss, confusion, and how its experts were used. Of images with captions:
// tools/pair_evaluation.h.
#pragma once

#include "models/average.h"
#include "models/retrieval_metrics.h"
#include "models/routing_metrics.h"
#include "models/task_loss.h"
#include "models/train_step.h"
#include "models/vit.h"
#include "tools/pipeline.h"
#include "tools/regression_report.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace ermoe {

/// What is said of one sample: a number, or its class (-1: several rank alike).
struct NumberPrediction {
  int64_t sample = 0;  // of the data set
  double truth = 0, predicted = 0;
};

struct Evaluation {
  int64_t images = 0;
  double loss = 0;                              // mean cross-entropy (or sigmoid) against the hard labels
  double accuracy = 0;                          // share of images whose class ranks first
  double top5 = 0;                              // … among the first five
  std::vector<double> class_accuracy;           // (Y); -1 where a class has no image
  std::vector<int64_t> confusion;               // (Y, Y): true class, predicted class
  std::vector<NumberPrediction> predictions;    // by sample; of a regression nothing is said of classes
  double mae = 0;                               // of a regression: mean |predicted - true|
  std::optional<RetrievalReport> retrieval;     // of pairs: nothing is said of classes
  std::vector<RoutingMetrics> routing;          // of each MoE layer; of two towers the image tower's first
  std::shared_ptr<RoutingCollector> collector;  // for the next evaluation's churn
};

/// What evaluation may be told about as it goes: images done so far.
using EvaluationProgress = std::function<void(int64_t images)>;

/// Sees every batch with the model's outputs (B, Y), on the host, and its routes.
using EvaluationObserver =
    std::function<void(const EvaluationBatch& batch, const Tensor& outputs, const std::vector<RoutingRecord>& routes)>;

/// Sets `config` to read the data set at `path`, all of which is then there to be evaluated on; false, and all stays, where it is empty or
/// the data that `config` names already.
bool take_other_data(RunConfig& config, const std::string& path);

/// Images at a time at evaluation: train.eval_batch, or a training micro-batch.
int64_t evaluation_batch(const TrainConfig& train);

/// The training batches, `batch` images each, from which the routing statistics of averaged weights are taken.
ForEachBatch statistics_batches(const ExecContext& ctx, Pipeline& pipeline, int64_t batch);

/// Of a regression: by subject, with the mean of the training targets. `split`: what the evaluated samples are called.
std::vector<AgePrediction> age_predictions(const Evaluation& evaluation, const Pipeline& pipeline, const DataConfig& data,
                                           const std::string& split);

/// In f32 and on the host, whatever the model computes in: `t` itself where it is so already.
Tensor floats_on_host(const ExecContext& ctx, const Tensor& t);

enum class ExpertOrder { own, shuffled };

/// Runs the whole evaluation split. `previous` (may be null) is the collector of the last evaluation of the same images.
/// `shuffled` sends every token to the experts next to its own: what is lost then, routing had earned.
Evaluation evaluate(const ExecContext& ctx, Vit& model, Pipeline& pipeline, const LossConfig& loss, int64_t batch,
                    const RoutingCollector* previous = nullptr, ExpertOrder order = ExpertOrder::own,
                    const EvaluationProgress& progress = {}, const EvaluationObserver& observer = {});

}  // namespace ermoe
