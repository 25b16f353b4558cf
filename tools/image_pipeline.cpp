#include "tools/image_pipeline.h"

#include "data/sample_reader.h"
#include "data/subset.h"
#include "models/step_times.h"
#include "ops/augment.h"
#include "ops/soft_targets.h"
#include "tools/config_check.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ermoe {
namespace {

constexpr size_t cache_bytes = size_t{2} << 30;  // prepared samples kept in memory, each split
constexpr double patience = 10;                  // seconds between two lines about loading

AugmentSettings augment_settings(const AugmentConfig& a) {
  return {.crop_padding = a.crop_padding,
          .flip = a.flip,
          .randaugment_n = a.randaugment_n,
          .randaugment_m = a.randaugment_m,
          .erasing = a.erasing};
}

Normalisation normalisation(const DataConfig& data) { return {.mean = data.mean, .deviation = data.std}; }

/// The random part that training takes of each image, where it does.
std::optional<ResizedCrop> resized_crop(const AugmentConfig& a) {
  if (!a.resized_crop) return std::nullopt;
  return ResizedCrop{.least_area = a.crop_scale.at(0),
                     .most_area = a.crop_scale.at(1),
                     .least_ratio = a.crop_ratio.at(0),
                     .most_ratio = a.crop_ratio.at(1)};
}

}  // namespace

SampleFormat sample_format(const RunConfig& config) {
  return {.size = config.model.image_size, .channels = config.model.channels, .crop_pct = config.data.crop_pct};
}

ImagePipeline::ImagePipeline(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank, int world)
    : config_(&config),
      host_(host),
      threads_(config.data.workers > 0 ? static_cast<int>(config.data.workers) : threads),
      warn_(std::move(warn)),
      rank_(rank),
      world_(world) {
  require_classes_of_images(config, config.data.path);
  open(config);
  fill_in_sizes(config);
  if (config.data.mean.empty() || config.data.std.empty()) measure_normalisation(config);
  const auto channels = static_cast<size_t>(config.model.channels);
  check_input(config.data.mean.size() == channels && config.data.std.size() == channels,
              "data.mean has {} and data.std {} values, but the images have {} channels", config.data.mean.size(), config.data.std.size(),
              channels);
}

void ImagePipeline::open(RunConfig& config) {
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

const std::vector<std::string>& ImagePipeline::class_names() const {
  return (splits_.train ? *splits_.train : *splits_.test).class_names();
}

bool ImagePipeline::number_classes(const std::vector<std::string>& names) {
  const std::vector<std::string> own = class_names();
  if (own == names) return true;
  const auto known = [&](const std::string& name) { return std::ranges::find(names, name) != names.end(); };
  if (!std::ranges::all_of(own, known)) return false;
  for (auto* split : {&splits_.train, &splits_.test})
    if (*split) *split = relabel(std::move(*split), names);
  return true;
}

void ImagePipeline::evaluate_on_training() {
  check_input(splits_.train != nullptr, "{} has no training images", config_->data.path);
  const std::shared_ptr<const ImageDataset> whole = std::move(splits_.train);
  std::vector<int64_t> all(static_cast<size_t>(whole->size()));
  std::iota(all.begin(), all.end(), 0);
  splits_.train = subset(whole, all);
  splits_.test = subset(whole, all);
}

void ImagePipeline::fill_in_sizes(RunConfig& config) const {
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
void ImagePipeline::measure_normalisation(RunConfig& config) const {
  const ImageDataset& data = splits_.train ? *splits_.train : *splits_.test;
  const SampleFormat format = sample_format(config);
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

LoaderOptions ImagePipeline::loader_options() const {
  return {.format = sample_format(*config_),
          .threads = threads_,
          .prefetch = std::max<int64_t>(4, threads_),
          .cache_bytes = cache_bytes,
          .max_bad = config_->data.max_bad,
          .engine = engine_.get(),
          .warn = warn_};
}

void ImagePipeline::load(const ExecContext& ctx, const ImageDataset& split, ResidentSamples& resident) const {
  Stopwatch watch;
  double seconds = 0, told = 0;
  const auto progress = [&](int64_t done) {
    seconds += watch.lap();
    if (!warn_ || seconds < told + patience) return;
    told = seconds;
    warn_(fmt::format("{} of {} images are decoded after {:.0f} s", done, split.size(), seconds));
  };
  resident = load_resident(split, host_, *ctx.allocator, loader_options(), progress);
}

std::string ImagePipeline::description() const {
  const VitConfig& model = config_->model;
  return fmt::format("{} training and {} evaluation images of {} classes, {}x{}x{}", training_size(), evaluation_size(), model.classes,
                     model.image_size, model.image_size, model.channels);
}

void ImagePipeline::settle_on(const ExecContext& ctx, Gpu* gpu) {
  choose_decoder(gpu);
  keep_on_device(ctx);
}

/// Lets the engines of `gpu` decode JPEG files where data.decoder says so; tells which.
void ImagePipeline::choose_decoder(Gpu* gpu) {
  DecoderDecision decision = decide_decoder(config_->data.decoder, splits_.train ? *splits_.train : *splits_.test, gpu);
  engine_ = std::move(decision.engine);
  if (warn_ && !decision.note.empty()) warn_(decision.note);
}

/// Decodes the data set into a GPU's memory where data.gpu_cache leaves room for all of it; says so.
void ImagePipeline::keep_on_device(const ExecContext& ctx) {
  if (!ctx.device.is_cuda() || config_->augment.resized_crop) return;  // a new part each epoch is decoded anew
  const SampleFormat format = loader_options().format;
  size_t wanted = 0, images = 0;
  for (const auto* split : {splits_.train.get(), splits_.test.get()}) {
    wanted += split != nullptr ? resident_bytes(*split, format) : 0;
    images += split != nullptr ? static_cast<size_t>(split->size()) : 0;
  }
  const auto room = config_->data.gpu_cache * static_cast<double>(ctx.allocator->source().available());
  if (static_cast<double>(wanted) > room) return;
  Stopwatch watch;
  if (splits_.train) load(ctx, *splits_.train, resident_train_.emplace());
  if (splits_.test) load(ctx, *splits_.test, resident_test_.emplace());
  if (warn_)
    warn_(fmt::format("{} images were decoded in {:.1f} s and stay on the GPU, {:.0f} MiB", images, watch.lap(),
                      static_cast<double>(wanted) / (1 << 20)));
  engine_.reset();  // with its memory: nothing is left to decode
}

std::unique_ptr<BatchSource> ImagePipeline::open_batches(const ImageDataset& split, const Sampler& sampler, const LoaderOptions& options,
                                                         Cursor at) const {
  const std::optional<ResidentSamples>& resident = &split == splits_.train.get() ? resident_train_ : resident_test_;
  if (resident) return resident_batches(*resident, sampler, host_, at);
  return streamed_batches(std::make_unique<Loader>(split, sampler, host_, options, at));
}

void ImagePipeline::seek(Cursor at) {
  check_input(splits_.train != nullptr, "{} has no training images", config_->data.path);
  if (batches_) return batches_->seek(at);
  const int64_t micro = config_->train.batch / config_->train.accumulate;
  check_input(micro >= 1 && micro <= splits_.train->size(), "train.batch is {} in {} micro-batches, but {} has {} training images",
              config_->train.batch, config_->train.accumulate, config_->data.path, splits_.train->size());
  const Sampler sampler(splits_.train->size(),
                        {.seed = config_->train.seed, .rank = rank_, .world = world_, .batch = micro, .mode = Mode::train});
  LoaderOptions options = loader_options();
  options.crop = resized_crop(config_->augment);
  batches_ = open_batches(*splits_.train, sampler, options, at);
}

MicroBatch ImagePipeline::next(const ExecContext& ctx, RngKey key, bool mixing) {
  const DeviceBatch batch = batches_->next(ctx);
  MicroBatch ready;
  ready.images = augment(ctx, batch.images, augment_settings(config_->augment), normalisation(config_->data), key.fold(1));
  ready.targets = soft_targets(ctx, batch.labels, config_->model.classes, config_->loss.smoothing);
  const AugmentConfig& a = config_->augment;
  if (mixing && (a.mixup > 0 || a.cutmix > 0)) {
    const MixSettings mix{.mixup = a.mixup, .cutmix = a.cutmix, .probability = a.mix_probability, .cutmix_share = a.mix_switch};
    mix_batch(ctx, ready.images, ready.targets, mix, key.fold(2));
  }
  return ready;
}

void ImagePipeline::for_each_evaluation_batch(const ExecContext& ctx, int64_t batch,
                                              const std::function<void(const EvaluationBatch&)>& fn) {
  check_input(splits_.test != nullptr, "{} has no images to evaluate on", config_->data.path);
  const Sampler sampler(splits_.test->size(),
                        {.rank = rank_, .world = world_, .batch = std::min(batch, splits_.test->size()), .mode = Mode::eval});
  const auto source = open_batches(*splits_.test, sampler, loader_options(), {});
  for (int64_t step = 0; step < source->steps_per_epoch(); ++step) {
    const DeviceBatch raw = source->next(ctx);
    if (raw.indices.empty()) {
      fn({});
      continue;
    }
    std::vector<int32_t> labels;
    for (const int64_t i : raw.indices) labels.push_back(splits_.test->label(i));
    fn({.input = {.images = to_model(ctx, raw.images)},
        .targets = soft_targets(ctx, raw.labels, config_->model.classes, 0),
        .labels = std::move(labels),
        .indices = raw.indices});
  }
}

void ImagePipeline::for_each_plain_batch(const ExecContext& ctx, int64_t batch, int64_t count,
                                         const std::function<void(const ModelInput&)>& fn) {
  const ImageDataset& data = splits_.train ? *splits_.train : *splits_.test;
  const int64_t rows = std::min(std::max<int64_t>(batch, world_), data.size());  // every rank wants one
  const Sampler sampler(data.size(), {.seed = 1, .rank = rank_, .world = world_, .batch = rows, .mode = Mode::train});
  LoaderOptions options = loader_options();
  options.cache_bytes = 0;
  const auto source = open_batches(data, sampler, options, {});
  for (int64_t i = 0; i < std::min(count, source->steps_per_epoch()); ++i) fn({.images = to_model(ctx, source->next(ctx).images)});
}

Tensor ImagePipeline::to_model(const ExecContext& ctx, const Tensor& pixels) const {
  return augment(ctx, on_device_of(ctx, pixels), {}, normalisation(config_->data), {});
}

}  // namespace ermoe
