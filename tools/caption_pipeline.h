// From a path to batches of images and their captions as ids: in training one caption of each image, drawn anew each epoch; in evaluation
// all of them. Read first: tools/pipeline.h, tools/image_batches.h, data/captions.h.
#pragma once

#include "data/caption_tokens.h"
#include "data/captions.h"
#include "tools/image_batches.h"
#include "tools/pipeline.h"

#include <optional>

namespace ermoe {

/// Opens `config.data.path` and fills in what was left to the data: model.image_size, model.channels, data.mean, data.std,
/// text.vocabulary, text.end_token. Settings that contradict the data are an InputError.
class CaptionPipeline final : public Pipeline {
 public:
  /// `tokenizer`: of a model that exists already; null: as tools/vocabulary.h finds one. Of `world` ranks this is `rank`.
  CaptionPipeline(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank = 0, int world = 1,
                  std::shared_ptr<const Tokenizer> tokenizer = nullptr);

  int64_t training_size() const override { return splits_.train ? splits_.train->size() : 0; }
  int64_t evaluation_size() const override { return splits_.test ? splits_.test->size() : 0; }
  const CaptionDataset& evaluation() const { return *splits_.test; }
  std::string description() const override;
  std::string evaluated_part() const override { return splits_.evaluated; }
  std::string sample_name(int64_t i) const override { return splits_.test->name(i); }
  /// There are no classes: no names.
  const std::vector<std::string>& class_names() const override { return no_names_; }
  bool number_classes(const std::vector<std::string>&) override { return true; }
  std::shared_ptr<const Tokenizer> tokenizer() const override { return tokenizer_; }
  void evaluate_on_training() override;
  void settle_on(const ExecContext& ctx, Gpu* gpu) override { images_.settle_on(ctx, gpu); }

  int64_t batches_per_epoch() const override { return images_.batches_per_epoch(); }
  void seek(Cursor at) override;
  Cursor cursor() const override { return images_.cursor(); }
  double wait_seconds() const override { return images_.wait_seconds(); }
  MicroBatch next(const ExecContext& ctx, RngKey key, bool mixing) override;
  void prefetch(const ExecContext& ctx) override { images_.prefetch(ctx); }

  /// With all captions of each batch's images, `owners` beside them.
  void for_each_evaluation_batch(const ExecContext& ctx, int64_t batch, const std::function<void(const EvaluationBatch&)>& fn) override;
  void for_each_plain_batch(const ExecContext& ctx, int64_t batch, int64_t count,
                            const std::function<void(const ModelInput&)>& fn) override;

 private:
  void open();
  CaptionTokens encode(const CaptionDataset& captions) const;
  Tensor random_captions(const CaptionTokens& tokens, std::span<const int64_t> samples, RngKey key) const;

  RunConfig* config_;
  CachingAllocator& host_;
  int threads_;
  WarnFn warn_;
  CaptionSplits splits_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<std::string> no_names_;
  std::optional<CaptionTokens> train_tokens_;  // once a batch was asked for
  ImageBatches images_;                        // last: its threads read what stands above
};

}  // namespace ermoe
