// From a data set's path to batches that a model takes: opening, sizes and normalisation read off the data, loading,
// augmentation, mixing, targets. Read next: tools/trainer.h.
#pragma once

#include "core/context.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "tools/batch_source.h"
#include "tools/decoder_choice.h"
#include "tools/run_config.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ermoe {

/// What samples are brought to before they reach the model.
SampleFormat sample_format(const RunConfig& config);

/// Images and targets of one micro-batch, ready for the model.
struct TrainingBatch {
  Tensor images;   // (B, C, S, S) f32
  Tensor targets;  // (B, Y) f32, soft where mixed or smoothed
};

struct EvaluationBatch {
  Tensor images;                 // (B, C, S, S) f32
  std::vector<int32_t> labels;   // (B)
  std::vector<int64_t> indices;  // (B) samples of the data set
};

/// Opens `config.data.path` and fills in what was left to the data: model.image_size, model.channels, model.classes,
/// data.mean, data.std. Settings that contradict the data are an InputError.
class Pipeline {
 public:
  /// Of `world` ranks this is `rank`: it gets its part of each batch.
  Pipeline(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank = 0, int world = 1);

  bool has_training() const { return splits_.train != nullptr; }
  bool has_evaluation() const { return splits_.test != nullptr; }
  const ImageDataset& training() const { return *splits_.train; }
  const ImageDataset& evaluation() const { return *splits_.test; }
  const std::vector<std::string>& class_names() const;
  /// Numbers the classes as a model does whose outputs have these names. False, and all stays, where a class is not among them.
  bool number_classes(const std::vector<std::string>& names);
  /// Evaluates on the training images. Before the first `next`.
  void evaluate_on_training();

  /// Lets the engines of `gpu` (null: the CPU) decode JPEG files where data.decoder says so; tells which. Before the first
  /// `keep_on_device` and `seek`; the GPU must outlive the pipeline.
  void choose_decoder(Gpu* gpu);
  /// Decodes the data set into a GPU's memory where data.gpu_cache leaves room for all of it; says so. Before the first `seek`.
  void keep_on_device(const ExecContext& ctx);

  /// Micro-batches an epoch holds.
  int64_t batches_per_epoch() const { return batches_->steps_per_epoch(); }
  /// Starts (or moves) the training batches. Before the first `next`.
  void seek(Cursor at);
  Cursor cursor() const { return batches_->cursor(); }
  double wait_seconds() const { return batches_->wait_seconds(); }
  /// The next training micro-batch, augmented with `key` unless `plain`.
  TrainingBatch next(const ExecContext& ctx, RngKey key, bool mixing);
  /// Starts to bring the images of the batch after this one, where they are ready. Before long work is queued.
  void prefetch(const ExecContext& ctx) { batches_->prefetch(ctx); }

  /// Calls `fn` with this rank's part of every evaluation batch in order; without anything where it has none.
  void for_each_evaluation_batch(const ExecContext& ctx, int64_t batch, const std::function<void(const EvaluationBatch&)>& fn);
  /// Calls `fn` with the images of the first `count` training batches, unaugmented: for routing statistics.
  void for_each_plain_batch(const ExecContext& ctx, int64_t batch, int64_t count, const std::function<void(const Tensor&)>& fn);

  /// A normalised model input from raw pixels (B, S, S, C) u8.
  Tensor to_model(const ExecContext& ctx, const Tensor& pixels) const;

 private:
  void open(RunConfig& config);
  void fill_in_sizes(RunConfig& config) const;
  void measure_normalisation(RunConfig& config) const;
  LoaderOptions loader_options() const;
  void load(const ExecContext& ctx, const ImageDataset& split, ResidentSamples& resident) const;
  std::unique_ptr<BatchSource> open_batches(const ImageDataset& split, const Sampler& sampler, const LoaderOptions& options,
                                            Cursor at) const;

  RunConfig* config_;
  CachingAllocator& host_;
  int threads_;
  WarnFn warn_;
  int rank_, world_;
  DatasetSplits splits_;
  std::unique_ptr<JpegEngine> engine_;                             // null: the loader's threads decode
  std::optional<ResidentSamples> resident_train_, resident_test_;  // where the data set lies on the device
  std::unique_ptr<BatchSource> batches_;
};

}  // namespace ermoe
