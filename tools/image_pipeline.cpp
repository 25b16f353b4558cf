#include "tools/image_pipeline.h"

#include "data/subset.h"
#include "ops/augment.h"
#include "ops/soft_targets.h"
#include "tools/config_check.h"

#include <algorithm>
#include <numeric>

namespace ermoe {

ImagePipeline::ImagePipeline(RunConfig& config, CachingAllocator& host, int threads, WarnFn warn, int rank, int world)
    : config_(&config), warn_(std::move(warn)), images_(config, host, threads, warn_, rank, world) {
  require_classes_of_images(config, config.data.path);
  open(config);
  fill_in_classes(config);
  images_.fill_in_sizes();
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
  use_splits();
}

void ImagePipeline::use_splits() { images_.use(splits_.train.get(), splits_.test.get()); }

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
  use_splits();
  return true;
}

void ImagePipeline::evaluate_on_training() {
  check_input(splits_.train != nullptr, "{} has no training images", config_->data.path);
  const std::shared_ptr<const ImageDataset> whole = std::move(splits_.train);
  std::vector<int64_t> all(static_cast<size_t>(whole->size()));
  std::iota(all.begin(), all.end(), 0);
  splits_.train = subset(whole, all);
  splits_.test = subset(whole, all);
  use_splits();
}

void ImagePipeline::fill_in_classes(RunConfig& config) const {
  VitConfig& model = config.model;
  const auto classes = static_cast<int64_t>(class_names().size());
  if (model.classes == 0) model.classes = classes;
  check_input(model.classes >= classes, "model.classes is {} but {} has {} classes", model.classes, config.data.path, classes);
}

std::string ImagePipeline::description() const {
  const VitConfig& model = config_->model;
  return fmt::format("{} training and {} evaluation images of {} classes, {}x{}x{}", training_size(), evaluation_size(), model.classes,
                     model.image_size, model.image_size, model.channels);
}

MicroBatch ImagePipeline::next(const ExecContext& ctx, RngKey key, bool mixing) {
  const DeviceBatch batch = images_.next(ctx);
  MicroBatch ready;
  ready.images = images_.augmented(ctx, batch.images, key.fold(1));
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
  images_.for_each_evaluation(ctx, batch, [&](const DeviceBatch& raw) {
    if (raw.indices.empty()) return fn({});
    std::vector<int32_t> labels;
    for (const int64_t i : raw.indices) labels.push_back(splits_.test->label(i));
    fn({.input = {.images = images_.to_model(ctx, raw.images)},
        .targets = soft_targets(ctx, raw.labels, config_->model.classes, 0),
        .labels = std::move(labels),
        .indices = raw.indices});
  });
}

void ImagePipeline::for_each_plain_batch(const ExecContext& ctx, int64_t batch, int64_t count,
                                         const std::function<void(const ModelInput&)>& fn) {
  images_.for_each_plain(ctx, batch, count, [&](const DeviceBatch& raw) { fn({.images = images_.to_model(ctx, raw.images)}); });
}

}  // namespace ermoe
