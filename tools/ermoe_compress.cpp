// ermoe-compress: fewer experts, or copies of busy ones, of a trained model. What is done to them: tools/compress.h.
#include "core/comm.h"
#include "core/error.h"
#include "models/checkpoint.h"
#include "models/config_rules.h"
#include "tools/command_line.h"
#include "tools/compress.h"
#include "tools/config_check.h"
#include "tools/config_io.h"
#include "tools/evaluation.h"
#include "tools/loaded_model.h"
#include "tools/main_guard.h"
#include "tools/run_folder.h"
#include "tools/thread_waiting.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>

namespace ermoe {
namespace {

struct Options {
  DeviceChoice device = DeviceChoice::auto_;
  Precision precision = Precision::auto_;
  std::string model, data, out, method = "drop";
  Compression what;
  int64_t batch = 0, threads = 0;
  bool table = false;
};

void note(const std::string& text) { std::fprintf(stderr, "note: %s\n", text.c_str()); }

std::string figure_name(const RunConfig& config) { return is_regression(config.loss.kind) ? "error" : "accuracy"; }

/// A row of the table. Loads are of all slots of the evaluated samples, of the layer where the figure is largest.
std::string row_text(const Compression& what, const Compressed& made, const Evaluation& e, const RunConfig& config) {
  double largest = 0, over_mean = 0;
  for (const RoutingMetrics& m : e.routing) {
    largest = std::max(largest, *std::ranges::max_element(m.load));
    over_mean = std::max(over_mean, m.max_over_mean);
  }
  const int64_t units = made.merged_units + made.lost_units;
  const double merged = units > 0 ? static_cast<double>(made.merged_units) / static_cast<double>(units) : 0;
  const std::string figure =
      is_regression(config.loss.kind) ? fmt::format("{:>10.3f}", e.mae) : fmt::format("{:>8.2f} %", 100 * e.accuracy);
  const char* method = what.prune == 0 ? "" : what.method == Pruning::merge ? "merge" : "drop";
  return fmt::format("{:>6.0f} % {:<6} {:>6.1f} % {:>8} {} {:>8.4f} {:>8.1f} % {:>8.2f}\n", 100 * what.prune, method, 100 * merged,
                     what.replicas, figure, e.loss, 100 * largest, over_mean);
}

/// The model as it was, a calibration set (the training samples, as they are at evaluation) and one to evaluate on.
class Workshop {
 public:
  Workshop(Engine& engine, LoadedModel& loaded, const Options& options, int threads)
      : engine_(engine), loaded_(loaded), config_(loaded.config()) {
    if (options.batch > 0) config_.train.eval_batch = options.batch;
    take_other_data(config_, options.data);
    if (config_.data.decoder == DecoderChoice::gpu) config_.data.decoder = DecoderChoice::auto_;
    compute_ = engine.compute_dtype(options.precision == Precision::auto_ ? config_.train.precision : options.precision);
    calibration_ = open(threads);
    check_input(calibration_->has_training(), "{}: there are no training samples to count experts' loads on", config_.data.path);
    test_ = open(threads);
    if (!test_->has_evaluation()) note("there is no test split: the figures are of what the model was trained on");
    loaded.use_average(calibration_.get(), note);
    calibration_->evaluate_on_training();
    if (!test_->has_evaluation()) test_->evaluate_on_training();
    original_ = host_copy(engine.ctx, engine.host_ctx(), loaded.vit());
    compressed_config(original_->config(), options.what);  // refuses before anything is counted
    loads_ = loads_of(loaded.vit());
  }

  /// In host memory.
  Compressed make(const Compression& what) {
    Compression pruning = what;
    pruning.replicas = 0;
    Compressed made = compress(host(), *original_, loads_, pruning);
    if (what.replicas == 0) return made;
    const auto busy = on_device(host_copy(host(), host(), *made.model));  // whose loads are not those of before
    made.model = compress(host(), *made.model, loads_of(*busy), {.replicas = what.replicas}).model;
    return made;
  }

  Evaluation evaluate_original() { return run(loaded_.vit(), *test_); }
  Evaluation evaluate(std::unique_ptr<Vit> model) { return run(*on_device(std::move(model)), *test_); }

  const RunConfig& config() const { return config_; }
  const ExecContext& host() const { return engine_.host_ctx(); }

 private:
  std::unique_ptr<Pipeline> open(int threads) {
    auto pipeline = open_pipeline(config_, engine_.staging, threads, note);
    pipeline->settle_on(engine_.ctx, engine_.gpu.get());
    if (!pipeline->number_classes(loaded_.class_names())) note("the classes are named otherwise than the model's, and are taken by number");
    return pipeline;
  }
  std::unique_ptr<Vit> on_device(std::unique_ptr<Vit> model) {
    if (engine_.gpu) model->move_to(engine_.ctx, compute_);
    return model;
  }
  Evaluation run(Vit& model, Pipeline& pipeline) {
    return ermoe::evaluate(engine_.ctx, model, pipeline, config_.loss, evaluation_batch(config_.train));
  }
  ExpertLoads loads_of(Vit& model) {
    ExpertLoads loads;
    for (const RoutingMetrics& m : run(model, *calibration_).routing) loads.push_back(m.load);
    return loads;
  }

  Engine& engine_;
  LoadedModel& loaded_;
  RunConfig config_;
  DType compute_;
  std::unique_ptr<Pipeline> calibration_, test_;
  std::unique_ptr<Vit> original_;
  ExpertLoads loads_;
};

void print_head(const RunConfig& config) {
  const std::string head = fmt::format("{:>8} {:<6} {:>8} {:>8} {:>10} {:>8} {:>10} {:>8}\n", "pruned", "method", "merged", "replicas",
                                       figure_name(config), "loss", "max load", "max/mean");
  std::fputs(head.c_str(), stdout);
}

void print_row(const Compression& what, const Compressed& made, const Evaluation& e, const RunConfig& config) {
  std::fputs(row_text(what, made, e, config).c_str(), stdout);
  std::fflush(stdout);
}

void make_and_print(Workshop& workshop, const Compression& what) {
  Compressed made = workshop.make(what);
  const Evaluation e = workshop.evaluate(std::move(made.model));
  print_row(what, made, e, workshop.config());
}

/// No experts, a quarter and half of them pruned either way; each without and, where asked for, with copies.
void print_table(Workshop& workshop, const Options& options) {
  std::vector<int64_t> copies{0};
  if (options.what.replicas > 0) copies.push_back(options.what.replicas);
  for (const int64_t replicas : copies)
    for (const double share : {0.0, 0.25, 0.5})
      for (const Pruning method : {Pruning::drop, Pruning::merge}) {
        if (share == 0 && (method == Pruning::merge || replicas == 0)) continue;
        const Compression what{.prune = share, .method = method, .replicas = replicas, .similarity = options.what.similarity};
        try {
          compressed_config(workshop.config().model, what);
        } catch (const InputError& e) {
          note(e.what());
          continue;
        }
        make_and_print(workshop, what);
      }
}

/// A run folder with one checkpoint, which is its best.
void write_run(const Workshop& workshop, const LoadedModel& loaded, Vit& model, const std::string& out) {
  RunConfig config = loaded.config();
  config.model = model.config();
  config.train.out = out;
  config.train.resume = config.train.init = "";
  const RunFolder folder(config);
  TrainingProgress progress = read_progress(loaded.folder());
  progress.config = config_to_json(config);
  CheckpointWriter writer(folder.path(), loaded.step());
  const FileChecksums checksums = write_model(workshop.host(), writer.partial(), model, progress);
  writer.commit(Standing::best, 1, checksums);
  std::printf("written    %s: %s experts a layer and %s copies, plain\n", writer.folder().c_str(),
              std::to_string(config.model.moe.experts).c_str(), std::to_string(config.model.moe.replicas).c_str());
}

int compress_model(const Options& options) {
  check_input(options.table || !options.out.empty(), "--out FOLDER is where the model goes; --table alone only compares");
  const int threads = resolve_threads(options.threads);
  Engine engine(threads, 0, options.device);
  if (!engine.gpu && !engine.device_note.empty()) note("computing on the CPU: " + engine.device_note);
  LoadedModel loaded(engine, options.model, note, options.precision);
  Workshop workshop(engine, loaded, options, threads);
  print_head(workshop.config());
  print_row({}, {}, workshop.evaluate_original(), workshop.config());
  if (options.table) print_table(workshop, options);
  if (options.out.empty()) return 0;
  write_run(workshop, loaded, *workshop.make(options.what).model, options.out);
  if (!options.table) make_and_print(workshop, options.what);
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app{"Prunes and merges experts of a trained model, or gives busy ones a copy, without training.", "ermoe-compress"};
  Options options;
  app.add_option("--run,--checkpoint", options.model, "run folder (its best checkpoint is taken) or a checkpoint's own folder")->required();
  app.add_option("--out", options.out, "new run folder for the result, which other programs take like any run");
  app.add_option("--prune", options.what.prune, "share of each layer's experts that goes: those with the smallest loads [0]")
      ->check(CLI::Range(0.0, 0.999));
  app.add_option("--method", options.method, "drop them, or merge their hidden units into similar ones [drop]")
      ->check(CLI::IsMember({"drop", "merge"}));
  app.add_option("--similarity", options.what.similarity, "with merge: least cosine of hidden units that become one [0.2]")
      ->check(CLI::Range(-1.0, 1.0));
  app.add_option("--replicate", options.what.replicas, "copies a layer, with int8 weights, of its most loaded experts [0]")
      ->check(CLI::Range(int64_t{0}, int64_t{4096}));
  app.add_flag("--table", options.table, "compare: 0, 25 and 50 % pruned, by both methods, and with --replicate");
  app.add_option("--data", options.data, "data set; as a rule the one that the run was trained on");
  app.add_option("--batch", options.batch, "images at a time; 0: as while training")->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  add_device_flag(app, options.device);
  add_precision_flag(app, options.precision);
  app.add_option("--threads", options.threads, "0: the cores that this process may use")->check(CLI::Range(0, 4096));
  if (!parse_flags(app, argc, argv)) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  }
  options.what.method = options.method == "merge" ? Pruning::merge : Pruning::drop;
  refuse_silent_multi_launch();
  return compress_model(options);
}

}  // namespace
}  // namespace ermoe

int main(int argc, char** argv) {
  ermoe::settle_thread_waiting(argv);
  return ermoe::guard_main("ermoe-compress", [&] { return ermoe::run(argc, argv); });
}
