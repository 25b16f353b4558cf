#include "tools/caption_pipeline.h"

#include "tools/vocabulary.h"

#include <numeric>

namespace ermoe {
namespace {

std::vector<int64_t> first_indices(int64_t count) {
  std::vector<int64_t> indices(static_cast<size_t>(count));
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

}  // namespace

CaptionPipeline::CaptionPipeline(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank, int world,
                                 std::shared_ptr<const Tokenizer> tokenizer)
    : config_(&config),
      host_(host),
      threads_(threads),
      warn_(std::move(warn)),
      tokenizer_(std::move(tokenizer)),
      images_(config, host, threads, warn_, rank, world) {
  open();
  if (tokenizer_)
    settle_text(config, *tokenizer_, "of the model");
  else
    tokenizer_ = choose_tokenizer(config, splits_.train.get(), warn_);
  images_.use(splits_.train.get(), splits_.test.get());
  images_.fill_in_sizes();
}

void CaptionPipeline::open() {
  const DataConfig& data = config_->data;
  check_input(!data.path.starts_with("synthetic"), "data.path: synthetic images have no captions, which a text tower wants (text.depth)");
  splits_ = open_captions(data.path, {.part = data.part,
                                      .training = TrainingPart::optional,
                                      .holdout = data.val_share,
                                      .seed = config_->train.seed,
                                      .max_bad = data.max_bad,
                                      .warn = warn_});
  const int64_t wanted = data.overfit > 0 ? data.overfit : data.limit;
  check_input(data.overfit == 0 || splits_.train != nullptr, "data.overfit wants training images, and {} has none", data.path);
  if (wanted > 0 && splits_.train) splits_.train = splits_.train->pick(first_indices(std::min(wanted, splits_.train->size())));
  if (data.overfit == 0) return;
  splits_.test = splits_.train->pick(first_indices(splits_.train->size()));
  splits_.evaluated = "train";
  config_->augment = {};
}

std::string CaptionPipeline::description() const {
  const VitConfig& model = config_->model;
  const auto captions = [](const CaptionDataset* set) { return set != nullptr ? std::ssize(set->all_captions()) : 0; };
  return fmt::format("{} training and {} evaluation images{} with {} and {} captions, {}x{}x{}; {} tokens", training_size(),
                     evaluation_size(), splits_.test ? fmt::format(" ({})", splits_.evaluated) : "", captions(splits_.train.get()),
                     captions(splits_.test.get()), model.image_size, model.image_size, model.channels, tokenizer_->vocabulary_size());
}

void CaptionPipeline::evaluate_on_training() {
  check_input(splits_.train != nullptr, "{} has no training images", config_->data.path);
  splits_.test = splits_.train->pick(first_indices(splits_.train->size()));
  splits_.evaluated = "train";
  images_.use(splits_.train.get(), splits_.test.get());
}

CaptionTokens CaptionPipeline::encode(const CaptionDataset& captions) const {
  return CaptionTokens(
      captions, tokenizer_->length(), [this](std::string_view text) { return tokenizer_->encode(text); }, threads_);
}

Tensor CaptionPipeline::random_captions(const CaptionTokens& tokens, std::span<const int64_t> samples, RngKey key) const {
  const Tensor ids = Tensor::empty(host_, {std::ssize(samples), tokens.width()}, DType::i32, "batch");
  tokens.fill_random(samples, key, ids);
  return ids;
}

void CaptionPipeline::seek(Cursor at) {
  if (!train_tokens_ && splits_.train) {
    train_tokens_.emplace(encode(*splits_.train));
    images_.accompany([this](std::span<const int64_t> samples, Cursor place) {
      return random_captions(*train_tokens_, samples, caption_key(config_->train.seed, place.epoch));
    });
  }
  images_.seek(at);
}

MicroBatch CaptionPipeline::next(const ExecContext& ctx, RngKey key, bool) {
  const DeviceBatch batch = images_.next(ctx);
  return {.images = images_.augmented(ctx, batch.images, key.fold(1)), .targets = {}, .tokens = batch.tokens};
}

void CaptionPipeline::for_each_evaluation_batch(const ExecContext& ctx, int64_t batch,
                                                const std::function<void(const EvaluationBatch&)>& fn) {
  check_input(splits_.test != nullptr, "{} has no images to evaluate on", config_->data.path);
  const CaptionDataset& captions = *splits_.test;
  const CaptionTokens tokens = encode(captions);
  images_.for_each_evaluation(ctx, batch, [&](const DeviceBatch& raw) {
    if (raw.indices.empty()) return fn({});
    EvaluationBatch ready{.input = {.images = images_.to_model(ctx, raw.images)}, .targets = {}, .labels = {}, .indices = raw.indices};
    for (const int64_t i : raw.indices) ready.owners.resize(ready.owners.size() + captions.captions(i).size(), i);
    const Tensor ids = Tensor::empty(host_, {std::ssize(ready.owners), tokens.width()}, DType::i32, "batch");
    int32_t* row = ids.data<int32_t>();
    for (const int64_t i : raw.indices)
      for (int64_t c = captions.first_caption(i); c < captions.first_caption(i + 1); ++c, row += tokens.width()) tokens.read(c, row);
    ready.input.tokens = on_device_of(ctx, ids);
    fn(ready);
  });
}

void CaptionPipeline::for_each_plain_batch(const ExecContext& ctx, int64_t batch, int64_t count,
                                           const std::function<void(const ModelInput&)>& fn) {
  const CaptionTokens tokens = encode(splits_.train ? *splits_.train : *splits_.test);
  images_.for_each_plain(ctx, batch, count, [&](const DeviceBatch& raw) {
    const Tensor ids = random_captions(tokens, raw.indices, caption_key(1, raw.at.epoch));
    fn({.images = images_.to_model(ctx, raw.images), .allow = {}, .tokens = on_device_of(ctx, ids)});
  });
}

}  // namespace ermoe
