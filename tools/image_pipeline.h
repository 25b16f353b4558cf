// From a path to batches of images and classes. Read first: tools/pipeline.h.
#pragma once

#include "data/dataset.h"
#include "tools/image_batches.h"
#include "tools/pipeline.h"

#include <string>
#include <vector>

namespace ermoe {

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
  void settle_on(const ExecContext& ctx, Gpu* gpu) override { images_.settle_on(ctx, gpu); }

  int64_t batches_per_epoch() const override { return images_.batches_per_epoch(); }
  void seek(Cursor at) override { images_.seek(at); }
  Cursor cursor() const override { return images_.cursor(); }
  double wait_seconds() const override { return images_.wait_seconds(); }
  MicroBatch next(const ExecContext& ctx, RngKey key, bool mixing) override;
  void prefetch(const ExecContext& ctx) override { images_.prefetch(ctx); }

  void for_each_evaluation_batch(const ExecContext& ctx, int64_t batch, const std::function<void(const EvaluationBatch&)>& fn) override;
  void for_each_plain_batch(const ExecContext& ctx, int64_t batch, int64_t count,
                            const std::function<void(const ModelInput&)>& fn) override;

  /// A normalised model input from raw pixels (B, S, S, C) u8.
  Tensor to_model(const ExecContext& ctx, const Tensor& pixels) const { return images_.to_model(ctx, pixels); }

 private:
  void open(RunConfig& config);
  void use_splits();
  void fill_in_classes(RunConfig& config) const;

  RunConfig* config_;
  WarnFn warn_;
  DatasetSplits splits_;
  ImageBatches images_;
};

}  // namespace ermoe
