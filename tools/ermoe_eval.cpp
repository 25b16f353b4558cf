// ermoe-eval: accuracy, confusion (or how images and captions find each other) and routing of a trained model on a data set. The work is
// done in tools/evaluation.h and tools/pair_evaluation.h.
#include "core/comm.h"
#include "core/error.h"
#include "core/file_io.h"
#include "data/encode_png.h"
#include "models/config_rules.h"
#include "tools/age_scatter.h"
#include "tools/command_line.h"
#include "tools/config_check.h"
#include "tools/cross_validation.h"
#include "tools/evaluation_report.h"
#include "tools/loaded_model.h"
#include "tools/looks_report.h"
#include "tools/main_guard.h"
#include "tools/pair_evaluation.h"
#include "tools/run_folder.h"
#include "tools/thread_waiting.h"

#include <CLI/CLI.hpp>

#include <nlohmann/json.hpp>

#include <cstdio>
#include <filesystem>
#include <functional>

namespace ermoe {
namespace {

struct Options {
  DeviceChoice device = DeviceChoice::auto_;
  Precision precision = Precision::auto_;
  std::string model, data, split, predictions, scatter, against, looks, regions, region_names;
  int64_t batch = 0, threads = 0, permutations = 1000, cube = 0;
  bool json = false, shuffle = false;
};

void note(const std::string& text) { std::fprintf(stderr, "note: %s\n", text.c_str()); }

/// Who is evaluated, as the model knows them.
enum class Samples { held_out, trained_on, of_other_data };

/// Which images: those asked for, else the data set's part to evaluate on, else all that it has.
Samples choose_images(Pipeline& pipeline, const Options& options, const LoadedModel& model, bool foreign) {
  if (!pipeline.number_classes(model.class_names()))
    note("the classes of the data set are named otherwise than those that the model was trained on, and are taken by their number");
  const bool training = options.split == "train" || (options.split.empty() && !pipeline.has_evaluation());
  if (training) pipeline.evaluate_on_training();
  return foreign ? Samples::of_other_data : training ? Samples::trained_on : Samples::held_out;
}

/// Ages beside what corrects their bias: a line through what the model says of its training subjects, where those are others, and at hand.
RegressionReport regression_of(const Evaluation& result, Pipeline& pipeline, const RunConfig& config, const Options& options,
                               Samples samples, const std::function<Evaluation(ExpertOrder)>& run) {
  std::vector<AgePrediction> predictions = age_predictions(result, pipeline, config.data, samples == Samples::trained_on ? "train" : "val");
  if (samples == Samples::of_other_data) {  // whose own mean the model could not know
    const bool known = config.loss.kind != LossKind::soft_labels;
    for (AgePrediction& p : predictions) p.training_mean = known ? std::optional(config.loss.target_mean) : std::nullopt;
  }
  if (pipeline.has_training() && samples == Samples::held_out) {
    pipeline.evaluate_on_training();
    std::vector<double> truth, predicted;
    for (const NumberPrediction& p : run(ExpertOrder::own).predictions) {
      truth.push_back(p.truth);
      predicted.push_back(p.predicted);
    }
    apply_correction(fit_bias(truth, predicted), predictions);
  }
  if (!options.predictions.empty()) write_file(options.predictions, predictions_csv(predictions));
  if (!options.scatter.empty()) write_png(options.scatter, age_scatter(predictions, "predicted ages"));
  return regression_report(predictions);
}

/// Of classes: a line an image, by its number in the data set.
std::string classes_csv(const Evaluation& result) {
  std::string text = "image,class,predicted\n";
  for (const NumberPrediction& p : result.predictions) text += fmt::format("{},{:.0f},{:.0f}\n", p.sample, p.truth, p.predicted);
  return text;
}

/// A cross-validation needs no model: what each fold predicted is there.
int evaluate_folds(const Options& options) {
  check_input(
      options.data.empty() && options.split.empty() && !options.shuffle,
      "{} is a cross-validation, whose predictions of those held out are reported as they are; for --data, --split or --shuffle give "
      "one model, as {}/fold-1",
      options.model, options.model);
  const std::vector<AgePrediction> all = held_out_predictions(options.model);
  const RegressionReport report = regression_report(all);
  if (!options.predictions.empty()) write_file(options.predictions, predictions_csv(all));
  if (!options.scatter.empty()) write_png(options.scatter, age_scatter(all, "everyone held out once"));
  std::fputs((options.json ? regression_json(report).dump(1) + "\n" : regression_text(report)).c_str(), stdout);
  if (!options.against.empty()) std::fputs(compare_text(options.model, options.against).c_str(), stdout);
  return 0;
}

int look_where(const Options& options) {
  check_input(!path_exists(options.looks) || std::filesystem::is_directory(options.looks), "--looks: {} is there and is no folder",
              options.looks);
  const int threads = resolve_threads(options.threads);
  Engine engine(threads, 0, options.device);
  if (!engine.gpu && !engine.device_note.empty()) note("computing on the CPU: " + engine.device_note);
  const Looks looks = look(engine,
                           {.run = options.model,
                            .data = options.data,
                            .split = options.split,
                            .regions = options.regions,
                            .region_names = options.region_names,
                            .permutations = options.permutations,
                            .cube = options.cube,
                            .batch = options.batch,
                            .precision = options.precision},
                           threads, note);
  const std::vector<std::string> written = write_looks(looks, options.looks);
  std::fputs((options.json ? looks_json(looks, written) : looks_text(looks, written)).c_str(), stdout);
  return 0;
}

/// The data set that the options name, or the run's own; whether it is another one.
struct OpenedData {
  RunConfig config;
  bool foreign = false;
  std::unique_ptr<Pipeline> pipeline;
};

std::unique_ptr<OpenedData> open_data(Engine& engine, LoadedModel& model, const Options& options, int threads) {
  auto data = std::make_unique<OpenedData>();  // a pipeline refers to its settings
  RunConfig& config = data->config = model.config();
  if (options.batch > 0) config.train.eval_batch = options.batch;
  data->foreign = take_other_data(config, options.data);
  if (config.data.decoder == DecoderChoice::gpu) config.data.decoder = DecoderChoice::auto_;  // the run's wish, on another machine
  if (!options.split.empty() && model.tokenizer()) config.data.overfit = 0;  // it would put training images in the place of any part
  if (options.split == "val") config.data.part = EvaluationPart::val;
  if (options.split == "test" && model.tokenizer()) config.data.part = EvaluationPart::test;
  data->pipeline = open_pipeline(config, engine.staging, threads, note, 0, 1, model.tokenizer());
  data->pipeline->settle_on(engine.ctx, engine.gpu.get());
  model.use_average(!data->foreign && data->pipeline->has_training() ? data->pipeline.get() : nullptr, note);
  return data;
}

EvaluationReport report_of(const LoadedModel& model, const RunConfig& config) {
  return {.checkpoint = model.folder(),
          .step = model.step(),
          .averaged = model.averaged(),
          .data = config.data.path,
          .class_names = model.class_names(),
          .result = {},
          .shuffled_accuracy = {}};
}

int print(const EvaluationReport& report, const Options& options) {
  std::fputs((options.json ? evaluation_json(report) : evaluation_text(report)).c_str(), stdout);
  return 0;
}

/// How well images and captions find each other.
int evaluate_captions(Engine& engine, LoadedModel& model, OpenedData& data, const Options& options) {
  auto& pipeline = dynamic_cast<CaptionPipeline&>(*data.pipeline);
  if (options.split == "train" || (options.split.empty() && !pipeline.has_evaluation())) pipeline.evaluate_on_training();
  const auto run = [&](ExpertOrder order) {
    return evaluate_pairs(engine.ctx, model.dual(), pipeline, pair_batches(data.config.train), {}, order);
  };
  PairEvaluation result = run(ExpertOrder::own);
  if (!options.predictions.empty()) write_file(options.predictions, found_csv(result.features, pipeline));
  EvaluationReport report = report_of(model, data.config);
  report.result = std::move(result.evaluation);
  report.image_blocks = data.config.model.depth;
  report.part = pipeline.evaluated_part();
  if (options.shuffle) report.shuffled_rsum = run(ExpertOrder::shuffled).evaluation.retrieval->all.rsum();
  return print(report, options);
}

int evaluate_model(const Options& options) {
  if (!options.looks.empty()) return look_where(options);
  if (models_in(options.model).size() > 1) return evaluate_folds(options);
  check_input(options.against.empty(), "--against compares two cross-validations, and {} is none", options.model);
  const int threads = resolve_threads(options.threads);
  Engine engine(threads, 0, options.device);
  if (!engine.gpu && !engine.device_note.empty()) note("computing on the CPU: " + engine.device_note);
  LoadedModel model(engine, options.model, note, options.precision, Towers::any);
  const bool captions = model.tokenizer() != nullptr;
  check_input(!captions || options.scatter.empty(), "--scatter draws numbers, and {} compares images with captions", model.folder());
  check_input(captions || options.split != "val", "--split val is for captions; of classes and numbers there are test and train");
  const auto data = open_data(engine, model, options, threads);
  if (captions) return evaluate_captions(engine, model, *data, options);
  Pipeline& pipeline = *data->pipeline;
  const RunConfig& config = data->config;
  const Samples samples = choose_images(pipeline, options, model, data->foreign);
  const auto run = [&](ExpertOrder order) {
    return evaluate(engine.ctx, model.vit(), pipeline, config.loss, evaluation_batch(config.train), nullptr, order);
  };
  EvaluationReport report = report_of(model, config);
  report.result = run(ExpertOrder::own);
  if (is_regression(config.loss.kind))
    report.regression = regression_of(report.result, pipeline, config, options, samples, run);
  else if (!options.predictions.empty())
    write_file(options.predictions, classes_csv(report.result));
  if (options.shuffle && !report.regression) report.shuffled_accuracy = run(ExpertOrder::shuffled).accuracy;
  return print(report, options);
}

void add_looks_flags(CLI::App& app, Options& options) {
  CLI::Option* const looks = app.add_option(
      "--looks", options.looks,
      "of a model of volumes: write into this folder which regions each expert takes, and what the predicted number rests on");
  app.add_option("--regions", options.regions, "with --looks: maps of regions, as data.regions; as a rule the run's own")->needs(looks);
  app.add_option("--region-names", options.region_names, "with --looks: a table of label and name, here or in the data set")->needs(looks);
  app.add_option("--permutations", options.permutations, "with --looks: draws of what chance gives [1000]")
      ->needs(looks)
      ->check(CLI::Range(int64_t{1}, int64_t{1000000}));
  app.add_option("--cube", options.cube, "with --looks: voxels a side of what is covered at once; 0: one patch, or 2x2x2 of many")
      ->needs(looks)
      ->check(CLI::Range(int64_t{0}, int64_t{1024}));
}

int run(int argc, char** argv) {
  CLI::App app{"Evaluates a trained model: accuracy or recall, loss, how its experts were used, and (--looks) where.", "ermoe-eval"};
  Options options;
  app.add_option("--run,--checkpoint", options.model,
                 "run folder (its best checkpoint is taken), a checkpoint's own folder, or that of a cross-validation")
      ->required();
  app.add_option("--data", options.data, "data set; as a rule the one that the run was trained on");
  app.add_option("--split", options.split, "test or train, of captions also val; as a rule what the run evaluated on")
      ->check(CLI::IsMember({"test", "train", "val"}));
  app.add_option("--batch", options.batch, "images at a time; 0: as while training")->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  add_device_flag(app, options.device);
  add_precision_flag(app, options.precision);
  app.add_option("--threads", options.threads, "0: the cores that this process may use")->check(CLI::Range(0, 4096));
  app.add_flag("--shuffle", options.shuffle, "evaluate once more with every token sent to the wrong experts");
  app.add_option("--predictions", options.predictions,
                 "write what is said of each image or subject, or what each caption finds, to this CSV");
  app.add_option("--scatter", options.scatter, "of a regression: draw them into this PNG");
  app.add_option("--against", options.against, "of a cross-validation's folder: compare with another one of the same subjects");
  add_looks_flags(app, options);
  app.add_flag("--json", options.json, "print JSON, with the confusion matrix");
  if (!parse_flags(app, argc, argv)) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  }
  refuse_silent_multi_launch();
  return evaluate_model(options);
}

}  // namespace
}  // namespace ermoe

int main(int argc, char** argv) {
  ermoe::settle_thread_waiting(argv);
  return ermoe::guard_main("ermoe-eval", [&] { return ermoe::run(argc, argv); });
}
