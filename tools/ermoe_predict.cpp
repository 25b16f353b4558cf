// ermoe-predict: images in, class names and probabilities out. Ranking and writing: tools/prediction.h.
#include "core/comm.h"
#include "core/error.h"
#include "data/image_files.h"
#include "data/loader.h"
#include "models/checkpoint_store.h"
#include "ops/augment.h"
#include "tools/command_line.h"
#include "tools/config_check.h"
#include "tools/evaluation.h"
#include "tools/image_pipeline.h"
#include "tools/loaded_model.h"
#include "tools/main_guard.h"
#include "tools/prediction.h"
#include "tools/run_folder.h"
#include "tools/thread_waiting.h"
#include "tools/volume_prediction.h"

#include <CLI/CLI.hpp>

#include <cstdio>

namespace ermoe {
namespace {

struct Options {
  DeviceChoice device = DeviceChoice::auto_;
  std::string model, regions;
  std::vector<std::string> files;
  std::string format = "csv";
  int64_t top = 5, threads = 0;
};

void complain(const std::string& text) { std::fprintf(stderr, "ermoe-predict: %s\n", text.c_str()); }
void print(const std::string& text) { std::fputs(text.c_str(), stdout); }

/// Predicts every readable image in order; returns how many could not be read. Each of those is named on stderr.
int64_t predict_all(Engine& engine, LoadedModel& model, const ImageDataset& images, const Options& options, int threads) {
  const RunConfig& config = model.config();
  ExecContext ctx = engine.ctx;
  ctx.mode = Mode::eval;
  const Normalisation normalisation{.mean = config.data.mean, .deviation = config.data.std};
  const Sampler sampler(images.size(), {.batch = std::min<int64_t>(images.size(), evaluation_batch(config.train)), .mode = Mode::eval});
  Loader loader(
      images, sampler, engine.staging,
      {.format = sample_format(config), .threads = threads, .prefetch = threads, .cache_bytes = 0, .max_bad = 1, .warn = complain});
  PredictionWriter writer(options.format == "json" ? PredictionFormat::json : PredictionFormat::csv, model.class_names());
  print(writer.head());
  for (int64_t step = 0; step < loader.steps_per_epoch(); ++step) {
    const Batch batch = loader.next();
    if (batch.indices.empty()) continue;
    ForwardPass pass;
    const Variable logits = model.vit().forward(ctx, Variable(augment(ctx, on_device_of(ctx, batch.images), {}, normalisation, {})), pass);
    const auto ranked = rank_classes(on_host(ctx, logits.value), config.loss.kind, options.top);
    for (size_t b = 0; b < ranked.size(); ++b) print(writer.entry({images.name(batch.indices[b]), ranked[b]}));
  }
  print(writer.foot());
  return loader.bad_files();
}

/// The ages of volumes; returns how many could not be read. Each of those is named on stderr.
int64_t predict_volumes(Engine& engine, std::vector<LoadedModel>& models, const Options& options) {
  check_input(options.regions.empty() || options.files.size() == 1, "--regions is the map of one volume, and {} are given",
              options.files.size());
  std::vector<VolumePrediction> predictions;
  for (const std::string& file : options.files) {
    try {
      predictions.push_back(predict_volume(engine, models, file, {.regions = options.regions, .experts = options.top}));
    } catch (const InputError& fault) {
      complain(fault.what());
    }
  }
  print(volume_predictions_text(predictions, options.format == "json" ? PredictionFormat::json : PredictionFormat::csv));
  return std::ssize(options.files) - std::ssize(predictions);
}

int predict(const Options& options) {
  const int threads = resolve_threads(options.threads);
  Engine engine(threads, 0, options.device);
  if (!engine.gpu && !engine.device_note.empty()) complain("computing on the CPU: " + engine.device_note);
  std::vector<LoadedModel> models;
  const std::vector<std::string> folders = models_in(options.model);
  for (const std::string& folder : folders) {
    // Of a cross-validation the last weights count, as in its report: the best ones were chosen by those held out.
    models.emplace_back(engine, folders.size() > 1 ? find_checkpoint(folder, "latest").folder : folder, complain);
    models.back().use_average(nullptr, complain);
  }
  LoadedModel& model = models.front();
  if (model.config().model.dimensions == 3) return predict_volumes(engine, models, options) > 0 ? 1 : 0;
  const auto images = open_image_files(options.files);
  return predict_all(engine, model, *images, options, threads) > 0 ? 1 : 0;
}

int run(int argc, char** argv) {
  CLI::App app{
      "Predicts the classes of images, or the ages of brains: with a spread over the models of a cross-validation's folder, or over varied "
      "copies. A broken file is named and costs only itself; the exit code is then 1.",
      "ermoe-predict"};
  Options options;
  app.add_option("--run,--checkpoint", options.model, "run folder (its best checkpoint is taken) or a checkpoint's own folder")->required();
  app.add_option("files", options.files, "images, or folders of images; NIfTI volumes, of which it says the age")->required();
  app.add_option("--regions", options.regions, "of a volume: its map of regions, where the model's experts have such");
  app.add_option("--top", options.top, "classes an image, or experts a volume [5]")->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  app.add_option("--format", options.format, "csv or json [csv]")->check(CLI::IsMember({"csv", "json"}));
  add_device_flag(app, options.device);
  app.add_option("--threads", options.threads, "0: the cores that this process may use")->check(CLI::Range(0, 4096));
  if (!parse_flags(app, argc, argv)) {
    print(app.help());
    return 0;
  }
  refuse_silent_multi_launch();
  return predict(options);
}

}  // namespace
}  // namespace ermoe

int main(int argc, char** argv) {
  ermoe::settle_thread_waiting(argv);
  return ermoe::guard_main("ermoe-predict", [&] { return ermoe::run(argc, argv); });
}
