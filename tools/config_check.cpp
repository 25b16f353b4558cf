#include "tools/config_check.h"

#include "core/enum_names.h"
#include "core/error.h"
#include "models/config_rules.h"
#include "tools/model_choice.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <thread>

namespace ermoe {
namespace {

void check_data(const RunConfig& config) {
  const DataConfig& data = config.data;
  check_input(data.mean.size() == data.std.size() || data.mean.empty() || data.std.empty(),
              "data.mean has {} values but data.std has {}; both need one a channel", data.mean.size(), data.std.size());
  check_input(data.mean.empty() == data.std.empty(), "data.{} is given without data.{}", data.mean.empty() ? "std" : "mean",
              data.mean.empty() ? "mean" : "std");
  const auto channels = static_cast<size_t>(config.model.channels);
  check_input(data.mean.empty() || channels == 0 || data.mean.size() == channels,
              "data.mean has {} values for {} channels (model.channels)", data.mean.size(), channels);
  check_input(data.folds == 0 || config.model.dimensions == 3, "data.folds: only volumes are cross-validated (model.dimensions)");
  check_input(data.folds != 1, "data.folds: one part cannot be held out and trained on");
  check_input(data.fold <= data.folds, "data.fold: there is no part {} of {} (data.folds)", data.fold, data.folds);
}

void check_range(const std::string& key, const std::vector<double>& values) {
  check_input(values.size() == 2 && values[0] <= values[1], "{} wants two values, the smaller one first", key);
}

/// What varies images varies no volumes, and the other way round.
void check_augment(const RunConfig& config) {
  const AugmentConfig& a = config.augment;
  check_range("augment.crop_scale", a.crop_scale);
  check_range("augment.crop_ratio", a.crop_ratio);
  const bool volumes = config.model.dimensions == 3;
  const auto only = [](bool wanted, const char* key, const char* what, const char* other) {
    check_input(!wanted, "augment.{} is for {} alone, and the model takes {} (model.dimensions)", key, what, other);
  };
  const std::pair<const char*, bool> of_images[] = {
      {"crop_padding", a.crop_padding > 0}, {"resized_crop", a.resized_crop}, {"randaugment_n", a.randaugment_n > 0},
      {"erasing", a.erasing > 0},           {"mixup", a.mixup > 0},           {"cutmix", a.cutmix > 0}};
  const std::pair<const char*, bool> of_volumes[] = {{"shift", a.shift > 0}, {"rotate", a.rotate > 0}, {"scale", a.scale > 0},
                                                     {"gain", a.gain > 0},   {"gamma", a.gamma > 0},   {"bias", a.bias > 0},
                                                     {"noise", a.noise > 0}};
  for (const auto& [key, set] : of_images) only(volumes && set, key, "images", "volumes");
  for (const auto& [key, set] : of_volumes) only(!volumes && set, key, "volumes", "images");
}

void check_bins(const BinRule& bins) {
  try {
    parse_bins(bins);
  } catch (const InputError& e) {
    fail_input("loss.bins: {}", e.what());
  }
}

void check_loss(const RunConfig& config) {
  const auto& weights = config.loss.class_weights;
  const int64_t classes = config.model.classes;
  check_input(weights.empty() || classes == 0 || static_cast<int64_t>(weights.size()) == classes,
              "loss.class_weights has {} values for {} classes (model.classes)", weights.size(), classes);
  check_input(weights.empty() || *std::max_element(weights.begin(), weights.end()) > 0, "loss.class_weights are all 0");
  if (!is_regression(config.loss.kind)) return;
  const std::string_view kind = enum_name(config.loss.kind);
  if (config.loss.kind == LossKind::soft_labels) check_bins(config.loss.bins);
  const int64_t outputs = outputs_of(config.loss);
  check_input(classes == 0 || classes == outputs, "model.classes: loss.kind {} wants {} output{}, not {}", kind, outputs,
              outputs == 1 ? "" : "s", classes);
  check_input(weights.empty(), "loss.class_weights: loss.kind {} knows no classes", kind);
  check_input(config.loss.smoothing == 0, "loss.smoothing: loss.kind {} knows no classes", kind);
}

void check_optim(const RunConfig& config) {
  const OptimConfig& optim = config.optim;
  check_input(optim.min_lr <= optim.lr || optim.schedule == Schedule::constant, "optim.min_lr {} lies above optim.lr {}", optim.min_lr,
              optim.lr);
  const int64_t steps = config.train.steps, warmup = optim.warmup_steps, cooldown = optim.cooldown_steps;
  check_input(steps == 0 || warmup <= steps, "optim.warmup_steps {} is longer than the run of {} steps", warmup, steps);
  check_input(steps == 0 || cooldown <= steps - warmup,
              "optim.cooldown_steps {} with optim.warmup_steps {} is longer than the run of {} steps", cooldown, warmup, steps);
}

void check_train(const RunConfig& config) {
  const TrainConfig& train = config.train;
  check_input(train.epochs > 0 || train.steps > 0, "train.epochs and train.steps are both 0: there is nothing to do");
  check_input(train.batch % train.accumulate == 0, "train.batch: {} images do not split into {} micro-batches (train.accumulate)",
              train.batch, train.accumulate);
#if !defined(ERMOE_WITH_CUDA)
  check_input(train.device != DeviceChoice::cuda, "train.device: this build computes on the CPU; leave it out or set it to cpu");
#endif
  check_input(train.device != DeviceChoice::cpu || train.precision != Precision::bf16,
              "train.precision: a CPU computes in f32; bf16 wants a GPU");
  check_input(train.resume.empty() || train.init.empty(),
              "train.resume and train.init cannot both be given: one goes on, the other starts anew");
  check_input(train.upcycle_noise == 0 || (train.upcycle && !train.init.empty()),
              "train.upcycle_noise: only experts that begin as a dense network (train.init, train.upcycle) have any noise");
  check_input(std::none_of(train.freeze.begin(), train.freeze.end(), [](const std::string& p) { return p.empty(); }),
              "train.freeze holds an empty pattern");
}

/// Without a text tower nothing that is said of texts would count.
void check_no_text(const RunConfig& config) {
  const auto& text = config.text;
  const TextConfig usual = no_text();
  const std::pair<const char*, bool> of_texts[] = {{"text.tokenizer", !config.tokenizer.empty()},
                                                   {"text.vocabulary", text.vocabulary != usual.vocabulary},
                                                   {"text.end_token", text.end_token != usual.end_token},
                                                   {"text.moe_layers", text.moe_layers != usual.moe_layers},
                                                   {"data.part", config.data.part != EvaluationPart::auto_}};
  for (const auto& [key, set] : of_texts) check_input(!set, "{}: there is no text tower; text.depth above 0 makes one", key);
}

/// What is for classes is not for pairs of images and captions.
void check_pairs(const RunConfig& config) {
  const LossConfig& loss = config.loss;
  const VitConfig& model = config.model;
  check_input(model.dimensions == 2, "model.dimensions: captions are compared with images (2), not with volumes (text.depth)");
  check_input(model.pool != Pool::flatten,
              "model.pool: flatten has weights for each place, and no features that captions could be compared with");
  check_input(model.classes == 0, "model.classes: captions know no classes; what a model has is retrieval.projection (text.depth)");
  const std::pair<const char*, bool> of_classes[] = {{"loss.kind", loss.kind != LossKind::cross_entropy},
                                                     {"loss.smoothing", loss.smoothing > 0},
                                                     {"loss.class_weights", !loss.class_weights.empty()},
                                                     {"augment.mixup", config.augment.mixup > 0},
                                                     {"augment.cutmix", config.augment.cutmix > 0}};
  for (const auto& [key, set] : of_classes)
    check_input(!set, "{}: captions know no classes (text.depth); their loss is retrieval.loss", key);
  check_input(!config.tokenizer.empty() || config.text.vocabulary == 0 || config.text.vocabulary >= 514,
              "text.vocabulary: a vocabulary that is learnt has 514 tokens at least (all bytes, a start and an end), not {}",
              config.text.vocabulary);
  check_input(config.train.batch / config.train.accumulate >= 2,
              "train.batch: a caption is told apart from others of its micro-batch, and one of {} image has none",
              config.train.batch / config.train.accumulate);
}

std::vector<std::string> check_task(const RunConfig& config) {
  if (task_of(config) != Task::pairs) {
    check_no_text(config);
    return {};
  }
  check_pairs(config);
  auto warnings = check_text(config.model, config.text);
  check_input(
      config.train.accumulate == 1 || !means_over_captions(config),
      "moe.z_weight, moe.orthogonal_output_weight: with experts in the text tower they are means over the tokens of a whole batch but its "
      "padding, which micro-batches (train.accumulate) do not put together");
  if (config.train.accumulate > 1)
    warnings.push_back(fmt::format("train.accumulate {}: captions are told apart within micro-batches of {} images, not among all {}",
                                   config.train.accumulate, config.train.batch / config.train.accumulate, config.train.batch));
  return warnings;
}

}  // namespace

bool means_over_captions(const RunConfig& config) {
  const MoeConfig& moe = config.model.moe;
  if (moe.z_weight == 0 && moe.orthogonal_output_weight == 0) return false;
  return task_of(config) == Task::pairs && !moe_blocks(config.text.moe_layers, config.text.depth).empty();
}

std::vector<std::string> validate(const RunConfig& config) {
  check_data(config);
  auto warnings = check_model(config.model);
  for (std::string& warning : check_task(config)) warnings.push_back(std::move(warning));
  const MoeConfig& moe = config.model.moe;
  check_input(moe.free_experts == 0 || !moe.regions.empty() || parse_threshold(moe.threshold).kind != ThresholdRule::Kind::none,
              "moe.free_experts: nothing would ever fall back to them without a moe.threshold or moe.regions");
  check_input(moe.replicas == 0,
              "moe.replicas: ermoe-compress copies experts of a trained model; there is nothing to copy before training");
  check_input(!config.model.center_input || config.model.dimensions == 3, "model.center_input is for volumes (model.dimensions)");
  check_augment(config);
  check_loss(config);
  check_optim(config);
  check_train(config);
  if (config.augment.off_epochs > 0 && config.train.steps == 0 && config.augment.off_epochs >= config.train.epochs &&
      (config.augment.mixup > 0 || config.augment.cutmix > 0)) {
    warnings.push_back(fmt::format("augment.off_epochs {} covers all {} epochs: mixup and cutmix are never used", config.augment.off_epochs,
                                   config.train.epochs));
  }
  return warnings;
}

void require_classes_of_images(const RunConfig& config, std::string_view source) {
  check_input(config.model.dimensions == 2, "model.dimensions: {} holds images, not volumes", source);
  check_input(!is_regression(config.loss.kind), "loss.kind: {} holds classes, and {} wants a number an image", source,
              enum_name(config.loss.kind));
}

void require_data(const RunConfig& config) { check_input(!config.data.path.empty(), "data.path is not set: give --data PATH"); }

std::vector<int> usable_cores() {
  std::vector<int> cores;
  // The kernel refuses a mask smaller than its own, so it grows until it fits.
  for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
    cpu_set_t* mask = CPU_ALLOC(cpus);
    const size_t bytes = CPU_ALLOC_SIZE(cpus);
    const bool ok = mask != nullptr && sched_getaffinity(0, bytes, mask) == 0;
    const int error = errno;
    for (int core = 0; ok && core < cpus; ++core)
      if (CPU_ISSET_S(core, bytes, mask)) cores.push_back(core);
    CPU_FREE(mask);
    if (ok || error != EINVAL) break;
  }
  return cores;
}

int resolve_threads(int64_t asked, int ranks) {
  if (asked > 0) return static_cast<int>(asked);
  const std::vector<int> cores = usable_cores();
  const int count = cores.empty() ? static_cast<int>(std::thread::hardware_concurrency()) : static_cast<int>(cores.size());
  return std::max(1, count / ranks);
}

}  // namespace ermoe
