#include "tools/report_run.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/subset.h"
#include "models/config_rules.h"
#include "models/summary.h"
#include "tools/loaded_model.h"
#include "tools/model_choice.h"
#include "tools/report_curves.h"
#include "tools/report_page.h"
#include "tools/report_pairs.h"
#include "tools/report_samples.h"
#include "tools/report_volumes.h"
#include "tools/report_weights.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <set>

namespace ermoe {
namespace {

using nlohmann::ordered_json;

/// Numbers (rows, columns) as a list of lists.
template <typename T>
ordered_json table(const std::vector<T>& values, size_t columns) {
  ordered_json rows = ordered_json::array();
  for (size_t i = 0; i < values.size(); ++i) {
    if (i % columns == 0) rows.push_back(ordered_json::array());
    rows.back().push_back(values[i]);
  }
  return rows;
}

class RunReport {
 public:
  RunReport(Engine& engine, const ReportedRun& run, const ReportOptions& options, int threads, const WarnFn& note)
      : engine_(engine),
        options_(options),
        threads_(threads),
        note_(note),
        folder_(run.folder),
        asked_(run.weights),
        model_(engine, run.weights, note, Precision::auto_, Towers::any) {
    config_ = model_.config();
    if (config_.data.decoder == DecoderChoice::gpu) config_.data.decoder = DecoderChoice::auto_;  // the run's wish, on another machine
  }

  ordered_json make() {
    std::filesystem::path clean = std::filesystem::absolute(folder_).lexically_normal();
    if (!clean.has_filename()) clean = clean.parent_path();
    out_["name"] = clean.filename().string();
    out_["folder"] = folder_;
    out_["checkpoint"] = model_.folder();
    out_["step"] = model_.step();
    out_["notes"] = ordered_json::array();
    out_["kind"] = kind();
    if (pairs())
      out_["notes"].push_back(
          "Of a dual encoder this page does not show which patch or word goes to which expert, nor what each expert likes best.");
    out_["classes"] = model_.class_names();
    out_["grid"] = std::vector<int64_t>(model_.model().grid().begin(), model_.model().grid().end());
    out_["batch"] = config_.train.batch;
    out_["curves"] = report_curves(folder_);
    describe_model();
    std::unique_ptr<Pipeline> pipeline = open();
    if (pipeline && pairs())
      evaluate_pairs_on(*pipeline);
    else if (pipeline)
      evaluate_on(*pipeline);
    else
      model_.use_average(nullptr, [](const std::string&) {});
    out_["standing"] = standing();
    describe_weights();
    return std::move(out_);
  }

 private:
  bool pairs() const { return task_of(config_) == Task::pairs; }
  const char* kind() const { return pairs() ? "pairs" : is_regression(config_.loss.kind) ? "numbers" : "classes"; }

  void describe_model() {
    const ModelSummary cost = pairs() ? summarize(model_.dual()) : summarize(model_.vit());
    out_["parameters"] = cost.parameters;
    out_["active_parameters"] = cost.active_parameters;
    out_["flops"] = brief(cost.forward_flops);
    out_["layers"] = ordered_json::array();
    for (MoeLayer* layer : model_.model().moe_layers()) {
      ordered_json one{{"block", layer->block()}, {"experts", layer->dims().experts}, {"free", layer->dims().free_experts}};
      if (pairs()) name_of_tower(layer->block(), one);
      out_["layers"].push_back(std::move(one));
    }
  }

  /// What the page, and the log (tools/objective.h), call a block of a dual encoder.
  void name_of_tower(int64_t block, ordered_json& layer) {
    const int64_t images = model_.dual().config().image.depth, own = block < images ? block : block - images;
    layer["name"] = fmt::format("{} block {}", block < images ? "image" : "text", own);
    layer["key"] = fmt::format("{}block{}", block < images ? "" : "text_", own);
  }

  /// Which of the run's checkpoints this is. The best one was chosen by the run's own evaluations: on the samples that are judged here,
  /// where no other data or split is, so its figures flatter.
  std::string standing() const {
    const std::string pointer = folder_ + "/checkpoints/best";
    std::string best = path_exists(pointer) ? read_file(pointer, 4096) : "";
    while (best.ends_with('\n')) best.pop_back();
    const bool is_best = asked_ == folder_ && !best.empty() && std::filesystem::path(model_.folder()).filename() == best;
    if (!is_best) return "last checkpoint";
    const bool same = out_.contains("split") && split_ == "test" && options_.data.empty();
    return !same                   ? "best checkpoint"
           : out_.contains("ages") ? "best checkpoint, chosen on these subjects"
                                   : "best checkpoint, chosen on these images";
  }

  /// Null, and a note, where the data cannot be read.
  std::unique_ptr<Pipeline> open() {
    take_other_data(config_, options_.data);
    try {
      std::unique_ptr<Pipeline> pipeline = open_pipeline(config_, engine_.staging, threads_, note_, 0, 1, model_.tokenizer());
      if (!pipeline->number_classes(model_.class_names()))
        out_["notes"].push_back("The classes of the data set are named otherwise than the model's, and are taken by their number.");
      pipeline->settle_on(engine_.ctx, engine_.gpu.get());
      if (options_.split == "train" || (options_.split.empty() && !pipeline->has_evaluation())) {
        pipeline->evaluate_on_training();
        split_ = "training";
      }
      check_input(pipeline->has_evaluation(), "{} has no {} samples", config_.data.path, split_);
      return pipeline;
    } catch (const InputError& fault) {
      note_(fmt::format("{}: the data cannot be read, so what wants images is left out: {}", folder_, fault.what()));
      out_["notes"].push_back(fmt::format("The data cannot be read here, so everything that wants images is left out: {}", fault.what()));
      return nullptr;
    }
  }

  void evaluate_on(Pipeline& pipeline) {
    model_.use_average(options_.data.empty() && pipeline.has_training() ? &pipeline : nullptr, note_);
    const auto* images = dynamic_cast<ImagePipeline*>(&pipeline);
    const std::vector<int64_t> shown = images != nullptr ? balanced_indices(images->evaluation(), options_.images) : std::vector<int64_t>();
    SampleGatherer gatherer(model_.vit(), config_.loss, {shown.begin(), shown.end()}, static_cast<size_t>(options_.images));
    const auto observe = [&](const EvaluationBatch& batch, const Tensor& outputs, const std::vector<RoutingRecord>& routes) {
      if (images != nullptr) gatherer.add(engine_.ctx.with_tape(nullptr), batch, outputs, routes);
    };
    const Evaluation result = evaluate(engine_.ctx, model_.vit(), pipeline, config_.loss, evaluation_batch(config_.train), nullptr,
                                       ExpertOrder::own, {}, observe);
    out_["data"] = config_.data.path;
    out_["split"] = split_;
    out_["images"] = result.images;
    out_["loss"] = brief(result.loss);
    describe_load(result.routing);
    describe_information(result);
    if (images != nullptr) {
      describe_classes(result);
      describe_samples(gatherer, *images);
    } else {
      out_["mae"] = brief(result.mae);
      describe_volumes(result, dynamic_cast<VolumePipeline&>(pipeline));
    }
  }

  void evaluate_pairs_on(Pipeline& pipeline) {
    model_.use_average(options_.data.empty() && pipeline.has_training() ? &pipeline : nullptr, note_);
    const PairEvaluation result = evaluate_pairs(engine_.ctx, model_.dual(), pipeline, pair_batches(config_.train));
    out_["data"] = config_.data.path;
    out_["split"] = pipeline.evaluated_part();
    out_["images"] = result.evaluation.images;
    out_["loss"] = brief(result.evaluation.loss);
    out_["recall"] = report_recall(*result.evaluation.retrieval);
    describe_load(result.evaluation.routing);
    out_["found"] = report_found(result.features, dynamic_cast<CaptionPipeline&>(pipeline).evaluation(), options_.images);
  }

  void describe_classes(const Evaluation& result) {
    out_["accuracy"] = brief(result.accuracy);
    out_["confusion"] = table(result.confusion, model_.class_names().size());
  }

  void describe_load(const std::vector<RoutingMetrics>& routing) {
    for (size_t l = 0; l < routing.size(); ++l) {
      ordered_json& layer = out_["layers"][l];
      layer["gini"] = brief(routing[l].gini);
      layer["dead"] = routing[l].dead_experts;
      layer["load"] = ordered_json::array();
      for (const double share : routing[l].load) layer["load"].push_back(brief(share));
    }
  }

  void describe_information(const Evaluation& result) {
    const size_t Y = model_.class_names().size();
    const auto counts = result.collector->class_counts(static_cast<int64_t>(Y));
    for (size_t l = 0; l < result.routing.size(); ++l) {
      const RoutingMetrics& m = result.routing[l];
      if (m.class_information < 0) continue;
      ordered_json& layer = out_["layers"][l];
      layer["information"] = brief(m.class_information);
      layer["information_null"] = brief(m.class_information_null);
      layer["class_counts"] = table(counts[l], Y);
    }
  }

  void describe_samples(const SampleGatherer& gatherer, const ImagePipeline& images) {
    SamplePictures pictures(images, config_);
    for (const auto& [name, records] : {std::pair("samples", &gatherer.shown()), std::pair("mistakes", &gatherer.mistakes())}) {
      out_[name] = ordered_json::array();
      for (const SampleRecord& record : *records)
        if (ordered_json one = pictures.describe(record); !one.is_null()) out_[name].push_back(std::move(one));
    }
    for (size_t l = 0; l < out_["layers"].size(); ++l) {
      ordered_json& layer = out_["layers"][l];
      layer["favourites"] = ordered_json::array();
      for (int64_t e = 0; e < layer["experts"].get<int64_t>(); ++e)
        layer["favourites"].push_back(pictures.favourites(gatherer.favourites(l, e)));
    }
  }

  void describe_volumes(const Evaluation& result, const VolumePipeline& pipeline) {
    out_["ages"] = report_ages(result, pipeline, config_, split_, options_.images);
    if (out_["layers"].empty()) return;
    LooksOptions options;
    options.run = model_.folder();
    options.data = options_.data;
    options.split = options_.split;
    options.covering = Covering::none;
    const Looks looks = look(engine_, options, threads_, [](const std::string&) {});
    out_["maps"] = report_expert_maps(looks.models.at(0), looks.spacing, result.images);
  }

  void describe_weights() {
    const std::vector<MoeLayer*> layers = model_.model().moe_layers();
    model_.model().refresh_if_stale(engine_.ctx);
    for (size_t l = 0; l < layers.size(); ++l) {
      out_["layers"][l]["spectra"] = report_spectra(engine_.ctx, *layers[l]);
      out_["layers"][l]["overlap"] = report_overlap(engine_.ctx, *layers[l]);
    }
  }

  Engine& engine_;
  const ReportOptions& options_;
  int threads_;
  const WarnFn& note_;
  std::string folder_, asked_, split_ = "test";
  LoadedModel model_;
  RunConfig config_;
  ordered_json out_;
};

}  // namespace

ordered_json report_run(Engine& engine, const ReportedRun& run, const ReportOptions& options, int threads, const WarnFn& note) {
  return RunReport(engine, run, options, threads, note).make();
}

}  // namespace ermoe
