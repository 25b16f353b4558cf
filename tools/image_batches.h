// Images of a data set as batches that a model takes: sizes and normalisation read off the data, who decodes, whether the images lie on
// the device, loading, augmentation. What belongs to an image, classes or captions, its pipeline adds: tools/image_pipeline.h,
// tools/caption_pipeline.h.
#pragma once

#include "data/dataset.h"
#include "data/loader.h"
#include "tools/batch_source.h"
#include "tools/decoder_choice.h"
#include "tools/run_config.h"

#include <functional>
#include <memory>
#include <optional>

namespace ermoe {

/// What samples are brought to before they reach the model.
SampleFormat sample_format(const RunConfig& config);

class ImageBatches {
 public:
  /// Of `world` ranks this is `rank`: it gets its part of each batch. `config` and `host` must outlive this.
  ImageBatches(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank, int world);

  /// The images from now on; either may be null, and both must outlive this or the next call. Before the first `seek`. What lies on the
  /// device of others goes.
  void use(const ImageDataset* train, const ImageDataset* test);
  /// Captions of training batches; before the first `seek`.
  void accompany(CaptionsOf captions) { captions_ = std::move(captions); }
  /// Fills in model.image_size, model.channels, data.mean and data.std where they are open. Throws InputError where they do not fit.
  void fill_in_sizes();

  /// As Pipeline has them.
  void settle_on(const ExecContext& ctx, Gpu* gpu);
  int64_t batches_per_epoch() const { return batches_->steps_per_epoch(); }
  void seek(Cursor at);
  Cursor cursor() const { return batches_->cursor(); }
  double wait_seconds() const { return batches_->wait_seconds(); }
  void prefetch(const ExecContext& ctx) { batches_->prefetch(ctx); }
  /// The next training batch, raw.
  DeviceBatch next(const ExecContext& ctx) { return batches_->next(ctx); }

  /// This rank's part of every evaluation batch in order, raw; without indices where it has none.
  void for_each_evaluation(const ExecContext& ctx, int64_t batch, const std::function<void(const DeviceBatch&)>& fn) const;
  /// The first `count` training batches, raw; those of evaluation where there are none.
  void for_each_plain(const ExecContext& ctx, int64_t batch, int64_t count, const std::function<void(const DeviceBatch&)>& fn) const;

  /// A normalised model input from raw pixels (B, S, S, C) u8; the first one varied as `augment` says.
  Tensor augmented(const ExecContext& ctx, const Tensor& pixels, RngKey key) const;
  Tensor to_model(const ExecContext& ctx, const Tensor& pixels) const;

 private:
  const ImageDataset& any() const { return train_ != nullptr ? *train_ : *test_; }
  void find_sizes();
  void measure_normalisation();
  LoaderOptions loader_options() const;
  void choose_decoder(Gpu* gpu);
  void keep_on_device(const ExecContext& ctx);
  void load(const ExecContext& ctx, const ImageDataset& split, ResidentSamples& resident) const;
  std::unique_ptr<BatchSource> open(const ImageDataset& split, const Sampler& sampler, const LoaderOptions& options, Cursor at,
                                    const CaptionsOf& captions = {}) const;

  RunConfig* config_;
  CachingAllocator& host_;
  int threads_;
  WarnFn warn_;
  int rank_, world_;
  const ImageDataset* train_ = nullptr;
  const ImageDataset* test_ = nullptr;
  std::unique_ptr<JpegEngine> engine_;                             // null: the loader's threads decode
  std::optional<ResidentSamples> resident_train_, resident_test_;  // where the data set lies on the device
  CaptionsOf captions_;                                            // empty: none
  std::unique_ptr<BatchSource> batches_;
};

}  // namespace ermoe
