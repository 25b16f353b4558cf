#include "tools/loaded_model.h"

#include "core/file_io.h"
#include "core/json.h"
#include "models/checkpoint.h"
#include "models/checkpoint_store.h"
#include "tools/config_check.h"
#include "tools/config_io.h"
#include "tools/evaluation.h"
#include "tools/model_choice.h"
#include "tools/vocabulary.h"

#include <nlohmann/json.hpp>

namespace ermoe {
namespace {

FoundCheckpoint find_for_use(const std::string& path) {
  check_input(path_exists(path), "{}: there is no such folder", path);
  if (path_exists(path + "/manifest.json") || !path_exists(path + "/checkpoints/best")) return find_checkpoint(path, "latest");
  try {
    return find_checkpoint(path, "best");
  } catch (const InputError& fault) {
    FoundCheckpoint found = find_checkpoint(path, "latest");
    found.note = fmt::format("the best checkpoint cannot be used ({}); step {} is taken instead", fault.what(), found.step);
    return found;
  }
}

RunConfig config_of(const TrainingProgress& progress, const std::string& folder) {
  const std::string source = folder + "/state.json: config";
  RunConfig config;
  apply_json(config, parse_json(progress.config, source, kSettingsLimits), source);
  const VitConfig& m = config.model;
  check_input((m.image_size > 0 || !m.volume.empty()) && m.channels > 0 && (m.classes > 0 || task_of(config) == Task::pairs),
              "{} lacks model.image_size (or model.volume), model.channels or model.classes", source);
  check_input(m.dimensions == 3 || (std::ssize(config.data.mean) == m.channels && std::ssize(config.data.std) == m.channels),
              "{} lacks data.mean or data.std of {} channels", source, m.channels);
  return config;
}

void require_towers(const RunConfig& config, Towers wanted, const std::string& folder) {
  const bool pairs = task_of(config) == Task::pairs;
  check_input(!pairs || wanted != Towers::one,
              "{}: is a dual encoder, which lets images and captions find each other; it predicts no classes or numbers", folder);
  check_input(pairs || wanted != Towers::two, "{}: is a model of images alone, without a text tower (text.depth) to compare texts with",
              folder);
}

}  // namespace

RunConfig config_of_checkpoint(const std::string& folder) { return config_of(read_progress(folder), folder); }

LoadedModel::LoadedModel(Engine& engine, const std::string& path, const WarnFn& note, Precision precision, Towers wanted)
    : engine_(engine) {
  check_input(engine.gpu || precision != Precision::bf16, "--precision bf16 wants a GPU: a CPU computes in f32");
  const FoundCheckpoint found = find_for_use(path);
  if (!found.note.empty()) note(found.note);
  folder_ = found.folder;
  step_ = found.step;
  const TrainingProgress progress = read_progress(folder_);
  config_ = config_of(progress, folder_);
  require_towers(config_, wanted, folder_);
  if (task_of(config_) == Task::pairs) tokenizer_ = saved_tokenizer(folder_, config_);
  class_names_ = progress.classes;
  const auto outputs = static_cast<size_t>(config_.model.classes);
  check_input(class_names_.size() <= outputs, "{}/state.json: {} class names for {} outputs", folder_, class_names_.size(), outputs);
  while (class_names_.size() < outputs) class_names_.push_back(std::to_string(class_names_.size()));
  model_ = make_model(config_);
  model_->allocate(engine.host_ctx(), DType::f32);
  load_weights(engine.host_ctx(), folder_ + "/model.safetensors", *model_);
  const Precision asked = precision == Precision::auto_ ? config_.train.precision : precision;
  if (engine.gpu) model_->move_to(engine.ctx, engine.compute_dtype(asked));
}

Vit& LoadedModel::vit() {
  auto* const vit = dynamic_cast<Vit*>(model_.get());
  check(vit != nullptr, "[loaded_model] {} is a dual encoder", folder_);
  return *vit;
}

DualEncoder& LoadedModel::dual() {
  auto* const dual = dynamic_cast<DualEncoder*>(model_.get());
  check(dual != nullptr, "[loaded_model] {} is no dual encoder", folder_);
  return *dual;
}

void LoadedModel::use_average(Pipeline* training, const WarnFn& note) {
  if (!path_exists(folder_ + "/ema.safetensors")) return;
  MovingAverage average(engine_.ctx, model_->arena(), config_.optim.ema);
  read_average_with_statistics(engine_.ctx, folder_, *model_, average);
  if (!average.statistics().empty() || buffers_of(*model_).empty()) {
    averaged_ = std::make_unique<AveragedWeights>(engine_.ctx, *model_, average);
    return;
  }
  std::unique_ptr<Pipeline> own;
  if (training == nullptr) {
    try {
      own = open_pipeline(config_, engine_.staging, 1, WarnFn{}, 0, 1, tokenizer_);
      training = own.get();
    } catch (const InputError& fault) {
      note(fmt::format(
          "the averaged weights are used with the routing statistics of the last ones, since the training data cannot be read: {}",
          fault.what()));
    }
  }
  const ForEachBatch batches =
      training != nullptr ? statistics_batches(engine_.ctx, *training, evaluation_batch(config_.train)) : ForEachBatch([](const auto&) {});
  averaged_ = std::make_unique<AveragedWeights>(engine_.ctx, *model_, average, batches);
}

}  // namespace ermoe
