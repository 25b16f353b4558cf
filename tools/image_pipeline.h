// From a path to batches of images and classes. Read first: tools/pipeline.h.
#pragma once

#include "data/dataset.h"
#include "data/loader.h"
#include "tools/batch_source.h"
#include "tools/decoder_choice.h"
#include "tools/pipeline.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ermoe {

/// What samples are brought to before they reach the model.
SampleFormat sample_format(const RunConfig& config);

/// Opens `config.data.path` and fills in what was left to the data: model.image_size, model.channels, model.classes,
/// data.mean, data.std. Settings that contradict the data are an InputError.
class ImagePipeline final : public Pipeline {
 public:
  /// Of `world` ranks this is `rank`: it gets its part of each batch.
  ImagePipeline(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank = 0, int world = 1);

  int64_t training_size() const override { return splits_.train ? splits_.train->size() : 0; }
  int64_t evaluation_size() const override { return splits_.test ? splits_.test->size() : 0; }
  const ImageDataset& evaluation() const { return *splits_.test; }
  std::string description() const override;
  std::string sample_name(int64_t i) const override { return splits_.test->name(i); }
  const std::vector<std::string>& class_names() const override;
  bool number_classes(const std::vector<std::string>& names) override;
  void evaluate_on_training() override;
  void settle_on(const ExecContext& ctx, Gpu* gpu) override;

  int64_t batches_per_epoch() const override { return batches_->steps_per_epoch(); }
  void seek(Cursor at) override;
  Cursor cursor() const override { return batches_->cursor(); }
  double wait_seconds() const override { return batches_->wait_seconds(); }
  MicroBatch next(const ExecContext& ctx, RngKey key, bool mixing) override;
  void prefetch(const ExecContext& ctx) override { batches_->prefetch(ctx); }

  void for_each_evaluation_batch(const ExecContext& ctx, int64_t batch, const std::function<void(const EvaluationBatch&)>& fn) override;
  void for_each_plain_batch(const ExecContext& ctx, int64_t batch, int64_t count,
                            const std::function<void(const ModelInput&)>& fn) override;

  /// A normalised model input from raw pixels (B, S, S, C) u8.
  Tensor to_model(const ExecContext& ctx, const Tensor& pixels) const;

 private:
  void open(RunConfig& config);
  void fill_in_sizes(RunConfig& config) const;
  void measure_normalisation(RunConfig& config) const;
  LoaderOptions loader_options() const;
  void choose_decoder(Gpu* gpu);
  void keep_on_device(const ExecContext& ctx);
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
