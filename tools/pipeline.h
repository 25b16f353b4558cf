// From a data set's path to batches that a model takes: opening, sizes and normalisation read off the data, loading, augmentation,
// targets. Read next: tools/image_pipeline.h, tools/caption_pipeline.h, tools/volume_pipeline.h; then tools/trainer.h.
#pragma once

#include "core/context.h"
#include "data/dataset.h"
#include "data/sampler.h"
#include "data/text/tokenizer.h"
#include "models/average.h"
#include "models/recorded_step.h"
#include "tools/run_config.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ermoe {

class Gpu;

struct InputStatistics {
  Tensor mean;           // (C, S, S[, S]) f32
  double deviation = 0;  // root mean square of what is left
};

struct EvaluationBatch {
  ModelInput input;
  Tensor targets;                    // (B, Y) f32, hard; of a regression (B, 1)
  std::vector<int32_t> labels;       // (B) classes; all 0 in a regression
  std::vector<int64_t> indices;      // (B) samples of the data set
  std::vector<int64_t> owners = {};  // (C) the sample that each row of input.tokens describes: all captions of the batch's images, in order
};

/// Opened by `open_pipeline`; then `settle_on`, then `seek`, then `next`.
class Pipeline {
 public:
  virtual ~Pipeline() = default;

  /// Samples; 0 where the data set has no such part.
  virtual int64_t training_size() const = 0;
  virtual int64_t evaluation_size() const = 0;
  bool has_training() const { return training_size() > 0; }
  bool has_evaluation() const { return evaluation_size() > 0; }
  /// What there is, for the user.
  virtual std::string description() const = 0;
  /// What the samples to evaluate on are: "test", or the name of another part.
  virtual std::string evaluated_part() const { return "test"; }
  /// One a model output; of a regression, what is predicted.
  virtual const std::vector<std::string>& class_names() const = 0;
  /// Numbers the classes as a model does whose outputs have these names. False, and all stays, where a class is not among them.
  virtual bool number_classes(const std::vector<std::string>& names) = 0;
  /// What the samples to evaluate on are called: a file, a subject.
  virtual std::string sample_name(int64_t i) const = 0;
  /// Of a regression the mean of the training targets, which who knows nothing would say.
  virtual std::optional<double> mean_target() const { return std::nullopt; }
  /// Of images with captions: what makes ids of these. Null elsewhere.
  virtual std::shared_ptr<const Tokenizer> tokenizer() const { return nullptr; }
  /// Of the training inputs, on the host, where model.center_input wants it; undefined elsewhere.
  virtual InputStatistics input_statistics() const { return {}; }
  /// Evaluates on the training samples. Before the first `next`.
  virtual void evaluate_on_training() = 0;

  /// Decides who decodes and whether the data set lies on the context's device, and says so. `gpu`: null on a CPU; it must outlive the
  /// pipeline. Once, before the first `seek`.
  virtual void settle_on(const ExecContext& ctx, Gpu* gpu) = 0;

  /// Micro-batches an epoch holds.
  virtual int64_t batches_per_epoch() const = 0;
  /// Starts (or moves) the training batches. Before the first `next`.
  virtual void seek(Cursor at) = 0;
  virtual Cursor cursor() const = 0;
  /// Total time that `next` waited for files.
  virtual double wait_seconds() const = 0;
  /// The next training micro-batch, augmented with `key`. Its targets (B, Y) are soft where mixed or smoothed; of a regression (B, 1), in
  /// their own unit. Of captions there are none, but `tokens`. `mixing`: whether images of a batch may be mixed.
  virtual MicroBatch next(const ExecContext& ctx, RngKey key, bool mixing) = 0;
  /// Starts to bring the images of the batch after this one, where they are ready. Before long work is queued.
  virtual void prefetch(const ExecContext&) {}

  /// Calls `fn` with this rank's part of every evaluation batch in order; without anything where it has none.
  virtual void for_each_evaluation_batch(const ExecContext& ctx, int64_t batch, const std::function<void(const EvaluationBatch&)>& fn) = 0;
  /// Calls `fn` with the first `count` training batches, unaugmented: for routing statistics.
  virtual void for_each_plain_batch(const ExecContext& ctx, int64_t batch, int64_t count,
                                    const std::function<void(const ModelInput&)>& fn) = 0;
};

/// Opens `config.data.path`, as images with classes, as images with captions where there is a text tower, or as volumes with numbers where
/// the model's dimensions are 3, and fills in what was left to the data: sizes, classes, normalisation, the targets' scale, the vocabulary.
/// Settings that contradict the data are an InputError. Of `world` ranks this is `rank`: it gets its part of each batch. `tokenizer`: that
/// of a dual encoder which exists already; null: as text.tokenizer says, or learnt (tools/vocabulary.h).
std::unique_ptr<Pipeline> open_pipeline(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank = 0, int world = 1,
                                        std::shared_ptr<const Tokenizer> tokenizer = nullptr);

}  // namespace ermoe
