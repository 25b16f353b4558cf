#include "tools/batch_source.h"

#include "ops/gather_samples.h"

#include <optional>

namespace ermoe {
namespace {

/// A tensor on its way from the host to the context's device beside the stream's work, or none at all. Holds what the copy reads and
/// writes until it is done.
class Upload {
 public:
  Upload(const ExecContext& ctx, Tensor host) : host_(std::move(host)), device_(host_) {
    if (!ctx.device.is_cuda() || !host_.defined()) return;
    source_ = &ctx.allocator->source();
    device_ = ctx.empty(host_.shape(), host_.dtype(), "batch");
    if (host_.numel() > 0) source_->start_upload(device_.raw(), host_.raw(), host_.bytes());
  }
  ~Upload() {
    if (source_ == nullptr) return;
    try {
      source_->finish_uploads();
    } catch (const Error&) {  // a GPU that failed: the next call to it says so
    }
  }
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

  /// The tensor on the device, once it is there.
  Tensor finish() {
    if (source_ != nullptr) source_->finish_uploads();
    source_ = nullptr;
    return device_;
  }

 private:
  MemorySource* source_ = nullptr;  // null: nothing to wait for
  Tensor host_, device_;
};

class StreamedBatches final : public BatchSource {
 public:
  StreamedBatches(std::unique_ptr<Loader> loader, CaptionsOf captions) : loader_(std::move(loader)), captions_(std::move(captions)) {}

  DeviceBatch next(const ExecContext& ctx) override {
    if (!ahead_) ahead_.emplace(ctx, loader_->next(), captions_);
    DeviceBatch batch = ahead_->finish();
    ahead_.reset();
    prefetch(ctx);
    return batch;
  }
  void prefetch(const ExecContext& ctx) override {
    if (!ahead_ && ctx.device.is_cuda() && loader_->ready()) ahead_.emplace(ctx, loader_->next(), captions_);
  }
  Cursor cursor() const override { return ahead_ ? ahead_->at() : loader_->cursor(); }
  void seek(Cursor at) override {
    ahead_.reset();
    loader_->seek(at);
  }
  int64_t steps_per_epoch() const override { return loader_->steps_per_epoch(); }
  double wait_seconds() const override { return loader_->wait_seconds(); }

 private:
  class Ahead {
   public:
    Ahead(const ExecContext& ctx, Batch batch, const CaptionsOf& captions)
        : batch_(std::move(batch)),
          images_(ctx, batch_.images),
          labels_(ctx, batch_.labels),
          tokens_(ctx, captions ? captions(batch_.indices, at()) : Tensor()) {}
    Cursor at() const { return {batch_.epoch, batch_.step}; }
    DeviceBatch finish() {
      return {.images = images_.finish(),
              .labels = labels_.finish(),
              .tokens = tokens_.finish(),
              .indices = std::move(batch_.indices),
              .at = at()};
    }

   private:
    Batch batch_;
    Upload images_, labels_, tokens_;
  };

  std::unique_ptr<Loader> loader_;
  CaptionsOf captions_;
  std::optional<Ahead> ahead_;
};

class ResidentBatches final : public BatchSource {
 public:
  ResidentBatches(const ResidentSamples& resident, const Sampler& sampler, CachingAllocator& host, Cursor start, CaptionsOf captions)
      : resident_(resident), sampler_(sampler), host_(host), cursor_(start), captions_(std::move(captions)) {}

  DeviceBatch next(const ExecContext& ctx) override { return sampler_.options().mode == Mode::train ? next_picked(ctx) : next_slice(); }
  Cursor cursor() const override { return cursor_; }
  void seek(Cursor at) override {
    ahead_.reset();
    cursor_ = at;
  }
  int64_t steps_per_epoch() const override { return sampler_.steps_per_epoch(); }
  double wait_seconds() const override { return 0; }

 private:
  /// Rows of the batch at `at`, uploaded while the one before is worked on.
  struct Ahead {
    Ahead(const ExecContext& ctx, std::vector<int64_t> chosen, const Tensor& host, const Tensor& captions)
        : samples(std::move(chosen)), rows(ctx, host), tokens(ctx, captions) {}
    std::vector<int64_t> samples;
    Upload rows, tokens;
  };

  void prepare(const ExecContext& ctx) {
    std::vector<int64_t> samples = sampler_.indices(cursor_);
    const Tensor rows = Tensor::empty(host_, {std::ssize(samples)}, DType::i32, "batch");
    for (size_t b = 0; b < samples.size(); ++b) {
      const int64_t row = resident_.row_of(samples[b]);
      rows.data<int32_t>()[b] = static_cast<int32_t>(row);
      samples[b] = resident_.samples[static_cast<size_t>(row)];
    }
    const Tensor captions = captions_ ? captions_(samples, cursor_) : Tensor();
    ahead_.emplace(ctx, std::move(samples), rows, captions);
  }

  DeviceBatch next_picked(const ExecContext& ctx) {
    if (!ahead_) prepare(ctx);
    const Tensor rows = ahead_->rows.finish();
    DeviceBatch batch{.images = gather_samples(ctx, resident_.images, rows),
                      .labels = gather_samples(ctx, resident_.labels, rows),
                      .tokens = ahead_->tokens.finish(),
                      .indices = std::move(ahead_->samples),
                      .at = cursor_};
    ahead_.reset();
    cursor_ = sampler_.after(cursor_);
    prepare(ctx);
    return batch;
  }

  /// In the order of the data set a batch is a piece of it.
  DeviceBatch next_slice() {
    const std::vector<int64_t> wanted = sampler_.indices(cursor_);
    const int64_t first = wanted.empty() ? 0 : resident_.first_row_from(wanted.front());
    const int64_t last = wanted.empty() ? 0 : resident_.first_row_from(wanted.back() + 1);
    DeviceBatch batch{.images = resident_.images.slice(first, last),
                      .labels = resident_.labels.slice(first, last),
                      .tokens = {},
                      .indices = {resident_.samples.begin() + first, resident_.samples.begin() + last},
                      .at = cursor_};
    cursor_ = sampler_.after(cursor_);
    return batch;
  }

  const ResidentSamples& resident_;
  Sampler sampler_;
  CachingAllocator& host_;
  Cursor cursor_;
  CaptionsOf captions_;
  std::optional<Ahead> ahead_;
};

}  // namespace

std::unique_ptr<BatchSource> streamed_batches(std::unique_ptr<Loader> loader, CaptionsOf captions) {
  return std::make_unique<StreamedBatches>(std::move(loader), std::move(captions));
}

std::unique_ptr<BatchSource> resident_batches(const ResidentSamples& resident, const Sampler& sampler, CachingAllocator& host, Cursor start,
                                              CaptionsOf captions) {
  return std::make_unique<ResidentBatches>(resident, sampler, host, start, std::move(captions));
}

}  // namespace ermoe
