#include "tools/image_batches.h"

#include "data/sample_reader.h"
#include "models/step_times.h"
#include "ops/augment.h"

#include <algorithm>
#include <cmath>

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

ImageBatches::ImageBatches(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank, int world)
    : config_(&config),
      host_(host),
      threads_(config.data.workers > 0 ? static_cast<int>(config.data.workers) : threads),
      warn_(std::move(warn)),
      rank_(rank),
      world_(world) {}

void ImageBatches::use(const ImageDataset* train, const ImageDataset* test) {
  train_ = train;
  test_ = test;
  resident_train_.reset();
  resident_test_.reset();
}

void ImageBatches::fill_in_sizes() {
  if (config_->model.image_size == 0 || config_->model.channels == 0) find_sizes();
  if (config_->data.mean.empty() || config_->data.std.empty()) measure_normalisation();
  const DataConfig& data = config_->data;
  const auto channels = static_cast<size_t>(config_->model.channels);
  check_input(data.mean.size() == channels && data.std.size() == channels,
              "data.mean has {} and data.std {} values, but the images have {} channels", data.mean.size(), data.std.size(), channels);
}

void ImageBatches::find_sizes() {
  const ImageDataset& data = any();
  VitConfig& model = config_->model;
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
void ImageBatches::measure_normalisation() {
  RunConfig& config = *config_;
  const ImageDataset& data = any();
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

LoaderOptions ImageBatches::loader_options() const {
  return {.format = sample_format(*config_),
          .threads = threads_,
          .prefetch = std::max<int64_t>(4, threads_),
          .cache_bytes = cache_bytes,
          .max_bad = config_->data.max_bad,
          .engine = engine_.get(),
          .warn = warn_};
}

void ImageBatches::load(const ExecContext& ctx, const ImageDataset& split, ResidentSamples& resident) const {
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

void ImageBatches::settle_on(const ExecContext& ctx, Gpu* gpu) {
  choose_decoder(gpu);
  keep_on_device(ctx);
}

/// Lets the engines of `gpu` decode JPEG files where data.decoder says so; tells which.
void ImageBatches::choose_decoder(Gpu* gpu) {
  DecoderDecision decision = decide_decoder(config_->data.decoder, any(), gpu);
  engine_ = std::move(decision.engine);
  if (warn_ && !decision.note.empty()) warn_(decision.note);
}

/// Decodes the data set into a GPU's memory where data.gpu_cache leaves room for all of it; says so.
void ImageBatches::keep_on_device(const ExecContext& ctx) {
  if (!ctx.device.is_cuda() || config_->augment.resized_crop) return;  // a new part each epoch is decoded anew
  const SampleFormat format = loader_options().format;
  size_t wanted = 0, images = 0;
  for (const ImageDataset* split : {train_, test_}) {
    wanted += split != nullptr ? resident_bytes(*split, format) : 0;
    images += split != nullptr ? static_cast<size_t>(split->size()) : 0;
  }
  const auto room = config_->data.gpu_cache * static_cast<double>(ctx.allocator->source().available());
  if (static_cast<double>(wanted) > room) return;
  Stopwatch watch;
  if (train_ != nullptr) load(ctx, *train_, resident_train_.emplace());
  if (test_ != nullptr) load(ctx, *test_, resident_test_.emplace());
  if (warn_)
    warn_(fmt::format("{} images were decoded in {:.1f} s and stay on the GPU, {:.0f} MiB", images, watch.lap(),
                      static_cast<double>(wanted) / (1 << 20)));
  engine_.reset();  // with its memory: nothing is left to decode
}

std::unique_ptr<BatchSource> ImageBatches::open(const ImageDataset& split, const Sampler& sampler, const LoaderOptions& options, Cursor at,
                                                const CaptionsOf& captions) const {
  const std::optional<ResidentSamples>& resident = &split == train_ ? resident_train_ : resident_test_;
  if (resident) return resident_batches(*resident, sampler, host_, at, captions);
  return streamed_batches(std::make_unique<Loader>(split, sampler, host_, options, at), captions);
}

void ImageBatches::seek(Cursor at) {
  check_input(train_ != nullptr, "{} has no training images", config_->data.path);
  if (batches_) return batches_->seek(at);
  const int64_t micro = config_->train.batch / config_->train.accumulate;
  check_input(micro >= 1 && micro <= train_->size(), "train.batch is {} in {} micro-batches, but {} has {} training images",
              config_->train.batch, config_->train.accumulate, config_->data.path, train_->size());
  const Sampler sampler(train_->size(), {.seed = config_->train.seed, .rank = rank_, .world = world_, .batch = micro, .mode = Mode::train});
  LoaderOptions options = loader_options();
  options.crop = resized_crop(config_->augment);
  batches_ = open(*train_, sampler, options, at, captions_);
}

void ImageBatches::for_each_evaluation(const ExecContext& ctx, int64_t batch, const std::function<void(const DeviceBatch&)>& fn) const {
  check_input(test_ != nullptr, "{} has no images to evaluate on", config_->data.path);
  const Sampler sampler(test_->size(), {.rank = rank_, .world = world_, .batch = std::min(batch, test_->size()), .mode = Mode::eval});
  const auto source = open(*test_, sampler, loader_options(), {});
  for (int64_t step = 0; step < source->steps_per_epoch(); ++step) fn(source->next(ctx));
}

void ImageBatches::for_each_plain(const ExecContext& ctx, int64_t batch, int64_t count,
                                  const std::function<void(const DeviceBatch&)>& fn) const {
  const ImageDataset& data = any();
  const int64_t rows = std::min(std::max<int64_t>(batch, world_), data.size());  // every rank wants one
  const Sampler sampler(data.size(), {.seed = 1, .rank = rank_, .world = world_, .batch = rows, .mode = Mode::train});
  LoaderOptions options = loader_options();
  options.cache_bytes = 0;
  const auto source = open(data, sampler, options, {});
  for (int64_t i = 0; i < std::min(count, source->steps_per_epoch()); ++i) fn(source->next(ctx));
}

Tensor ImageBatches::augmented(const ExecContext& ctx, const Tensor& pixels, RngKey key) const {
  return augment(ctx, pixels, augment_settings(config_->augment), normalisation(config_->data), key);
}

Tensor ImageBatches::to_model(const ExecContext& ctx, const Tensor& pixels) const {
  return augment(ctx, on_device_of(ctx, pixels), {}, normalisation(config_->data), {});
}

}  // namespace ermoe
