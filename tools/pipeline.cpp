#include "tools/pipeline.h"

#include "data/sample_reader.h"
#include "data/subset.h"
#include "ops/augment.h"
#include "ops/soft_targets.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ermoe {
namespace {

constexpr size_t cache_bytes = size_t{2} << 30;  // prepared samples kept in memory, each split

AugmentSettings augment_settings(const AugmentConfig& a) {
  return {.crop_padding = a.crop_padding,
          .flip = a.flip,
          .randaugment_n = a.randaugment_n,
          .randaugment_m = a.randaugment_m,
          .erasing = a.erasing};
}

Normalisation normalisation(const DataConfig& data) { return {.mean = data.mean, .deviation = data.std}; }

}  // namespace

Pipeline::Pipeline(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn)
    : config_(&config),
      host_(host),
      threads_(config.data.workers > 0 ? static_cast<int>(config.data.workers) : threads),
      warn_(std::move(warn)) {
  open(config);
  fill_in_sizes(config);
  if (config.data.mean.empty() || config.data.std.empty()) measure_normalisation(config);
  const auto channels = static_cast<size_t>(config.model.channels);
  check_input(config.data.mean.size() == channels && config.data.std.size() == channels,
              "data.mean has {} and data.std {} values, but the images have {} channels", config.data.mean.size(), config.data.std.size(),
              channels);
}

void Pipeline::open(RunConfig& config) {
  splits_ = open_dataset(config.data.path, {.holdout = config.data.val_share, .seed = config.train.seed, .warn = warn_});
  if (config.data.overfit > 0) {
    check_input(splits_.train != nullptr, "data.overfit wants training images, and {} has none", config.data.path);
    const std::shared_ptr<const ImageDataset> whole = std::move(splits_.train);
    const std::vector<int64_t> chosen = balanced_indices(*whole, config.data.overfit);
    splits_.train = subset(whole, chosen);
    splits_.test = subset(whole, chosen);
    config.augment = {};
  } else if (config.data.limit > 0 && splits_.train) {
    splits_.train = limit(std::move(splits_.train), config.data.limit);
  }
}

const std::vector<std::string>& Pipeline::class_names() const { return (splits_.train ? *splits_.train : *splits_.test).class_names(); }

bool Pipeline::number_classes(const std::vector<std::string>& names) {
  const std::vector<std::string> own = class_names();
  if (own == names) return true;
  const auto known = [&](const std::string& name) { return std::ranges::find(names, name) != names.end(); };
  if (!std::ranges::all_of(own, known)) return false;
  for (auto* split : {&splits_.train, &splits_.test})
    if (*split) *split = relabel(std::move(*split), names);
  return true;
}

void Pipeline::evaluate_on_training() {
  check_input(splits_.train != nullptr, "{} has no training images", config_->data.path);
  const std::shared_ptr<const ImageDataset> whole = std::move(splits_.train);
  std::vector<int64_t> all(static_cast<size_t>(whole->size()));
  std::iota(all.begin(), all.end(), 0);
  splits_.train = subset(whole, all);
  splits_.test = subset(whole, all);
}

void Pipeline::fill_in_sizes(RunConfig& config) const {
  const ImageDataset& data = splits_.train ? *splits_.train : *splits_.test;
  VitConfig& model = config.model;
  const auto classes = static_cast<int64_t>(data.class_names().size());
  if (model.classes == 0) model.classes = classes;
  check_input(model.classes >= classes, "model.classes is {} but {} has {} classes", model.classes, config.data.path, classes);
  if (model.image_size > 0 && model.channels > 0) return;
  Image first;
  for (int64_t i = 0; i < std::min<int64_t>(data.size(), 16) && first.pixels.empty(); ++i) {
    try {
      first = data.read(i);
    } catch (const InputError&) {
      if (i + 1 == std::min<int64_t>(data.size(), 16)) throw;  // the loader counts and names broken files; here one good one is enough
    }
  }
  if (model.channels == 0) model.channels = first.channels;
  if (model.image_size == 0) {
    const int64_t side = std::min(first.height, first.width);
    model.image_size = side <= 64 ? std::max(model.patch, side / model.patch * model.patch) : 224 / model.patch * model.patch;
  }
}

/// Mean and deviation a channel over up to 1,000 training images at the model's size.
void Pipeline::measure_normalisation(RunConfig& config) const {
  const ImageDataset& data = splits_.train ? *splits_.train : *splits_.test;
  const SampleFormat format{.size = config.model.image_size, .channels = config.model.channels};
  const auto C = static_cast<size_t>(format.channels);
  std::vector<uint8_t> pixels(static_cast<size_t>(format.elements()));
  std::vector<double> sum(C), squares(C);
  double count = 0;
  const int64_t stride = std::max<int64_t>(1, data.size() / 1000);
  for (int64_t i = 0; i < data.size(); i += stride) {
    try {
      prepare(data.read(i), format, pixels.data());
    } catch (const InputError&) {
      continue;  // the loader counts and names broken files
    }
    for (size_t p = 0; p < pixels.size(); ++p) {
      const double v = pixels[p] / 255.0;
      sum[p % C] += v;
      squares[p % C] += v * v;
    }
    count += static_cast<double>(pixels.size() / C);
  }
  check_input(count > 0, "{}: not one image could be read", config.data.path);
  config.data.mean.resize(C);
  config.data.std.resize(C);
  for (size_t c = 0; c < C; ++c) {
    const double mean = sum[c] / count;
    config.data.mean[c] = std::round(mean * 1e4) / 1e4;
    config.data.std[c] = std::max(1e-3, std::round(std::sqrt(std::max(0.0, squares[c] / count - mean * mean)) * 1e4) / 1e4);
  }
}

LoaderOptions Pipeline::loader_options() const {
  return {.format = {.size = config_->model.image_size, .channels = config_->model.channels},
          .threads = threads_,
          .prefetch = std::max<int64_t>(4, threads_),
          .cache_bytes = cache_bytes,
          .max_bad = config_->data.max_bad,
          .warn = warn_};
}

void Pipeline::seek(Cursor at) {
  check_input(splits_.train != nullptr, "{} has no training images", config_->data.path);
  if (loader_) return loader_->seek(at);
  const int64_t micro = config_->train.batch / config_->train.accumulate;
  check_input(micro >= 1 && micro <= splits_.train->size(), "train.batch is {} in {} micro-batches, but {} has {} training images",
              config_->train.batch, config_->train.accumulate, config_->data.path, splits_.train->size());
  const Sampler sampler(splits_.train->size(), {.seed = config_->train.seed, .batch = micro, .mode = Mode::train});
  loader_ = std::make_unique<Loader>(*splits_.train, sampler, host_, loader_options(), at);
}

TrainingBatch Pipeline::next(const ExecContext& ctx, RngKey key, bool mixing) {
  const Batch batch = loader_->next();
  TrainingBatch ready;
  ready.images =
      augment(ctx, on_device_of(ctx, batch.images), augment_settings(config_->augment), normalisation(config_->data), key.fold(1));
  ready.targets = soft_targets(ctx, on_device_of(ctx, batch.labels), config_->model.classes, config_->loss.smoothing);
  const AugmentConfig& a = config_->augment;
  if (mixing && (a.mixup > 0 || a.cutmix > 0)) {
    const MixSettings mix{.mixup = a.mixup, .cutmix = a.cutmix, .probability = a.mix_probability, .cutmix_share = a.mix_switch};
    mix_batch(ctx, ready.images, ready.targets, mix, key.fold(2));
  }
  return ready;
}

void Pipeline::for_each_evaluation_batch(const ExecContext& ctx, int64_t batch, const std::function<void(const EvaluationBatch&)>& fn) {
  check_input(splits_.test != nullptr, "{} has no images to evaluate on", config_->data.path);
  const Sampler sampler(splits_.test->size(), {.batch = std::min(batch, splits_.test->size()), .mode = Mode::eval});
  Loader loader(*splits_.test, sampler, host_, loader_options());
  for (int64_t step = 0; step < loader.steps_per_epoch(); ++step) {
    const Batch raw = loader.next();
    if (raw.labels.numel() == 0) continue;
    const auto labels = raw.labels.span<int32_t>();
    fn({to_model(ctx, raw.images), {labels.begin(), labels.end()}, raw.indices});
  }
}

void Pipeline::for_each_plain_batch(const ExecContext& ctx, int64_t batch, int64_t count, const std::function<void(const Tensor&)>& fn) {
  const ImageDataset& data = splits_.train ? *splits_.train : *splits_.test;
  const Sampler sampler(data.size(), {.seed = 1, .batch = std::min(batch, data.size()), .mode = Mode::train});
  LoaderOptions options = loader_options();
  options.threads = 0;  // a few batches now and then
  options.cache_bytes = 0;
  Loader loader(data, sampler, host_, options);
  for (int64_t i = 0; i < std::min(count, loader.steps_per_epoch()); ++i) fn(to_model(ctx, loader.next().images));
}

Tensor Pipeline::to_model(const ExecContext& ctx, const Tensor& pixels) const {
  return augment(ctx, on_device_of(ctx, pixels), {}, normalisation(config_->data), {});
}

}  // namespace ermoe
