// ermoe-demo: what a trained run learned, in a few lines and one picture. It is the last step of demo.sh; drawing is
// tools/demo_picture.h, the figures are those of tools/evaluation.h.
#include "core/comm.h"
#include "core/error.h"
#include "data/encode_png.h"
#include "data/sample_reader.h"
#include "data/subset.h"
#include "tools/command_line.h"
#include "tools/config_check.h"
#include "tools/demo_picture.h"
#include "tools/evaluation.h"
#include "tools/image_pipeline.h"
#include "tools/loaded_model.h"
#include "tools/main_guard.h"
#include "tools/run_folder.h"
#include "tools/thread_waiting.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace ermoe {
namespace {

struct Options {
  DeviceChoice device = DeviceChoice::auto_;
  std::string run, out;
  int64_t threads = 0;
};

constexpr int64_t most_layers = 3;          // shown beside an image
constexpr int64_t candidates = 300;         // images that the picture's are taken from
constexpr size_t ordinary = 10, wrong = 2;  // images shown: the first of each class, and mistakes

/// The layers that the picture shows, as places in ForwardPass::routes: the first, the last, and one between.
std::vector<size_t> layers_shown(size_t count) {
  if (count <= most_layers) {
    std::vector<size_t> all(count);
    for (size_t i = 0; i < count; ++i) all[i] = i;
    return all;
  }
  return {0, count / 2, count - 1};
}

/// Runs a model on single images of a data set and keeps what the picture needs.
class Looker {
 public:
  Looker(const ExecContext& ctx, LoadedModel& model, const ImagePipeline& pipeline)
      : ctx_(ctx),
        model_(model),
        pipeline_(pipeline),
        format_(sample_format(model.config())),
        reader_(pipeline.evaluation(), format_, 0),
        shown_(layers_shown(model.vit().moe_layers().size())) {
    ctx_.mode = Mode::eval;
    ctx_.tape = nullptr;
  }

  DemoSample look(int64_t index) {
    std::vector<uint8_t> pixels(static_cast<size_t>(format_.elements()));
    reader_.read(index, pixels.data());
    const Tensor raw = Tensor::from<uint8_t>(*ctx_.allocator, {1, format_.size, format_.size, format_.channels}, pixels);
    ForwardPass pass;
    const Variable logits = model_.vit().forward(ctx_, Variable(pipeline_.to_model(ctx_, raw)), pass);
    DemoSample sample;
    sample.image = {.height = format_.size, .width = format_.size, .channels = format_.channels, .pixels = std::move(pixels)};
    sample.truth = model_.class_names()[static_cast<size_t>(pipeline_.evaluation().label(index))];
    read_guess(on_host(ctx_, logits.value), sample);
    for (const size_t layer : shown_) sample.experts.push_back(first_slots(pass.routes[layer]));
    return sample;
  }

 private:
  void read_guess(const Tensor& logits, DemoSample& sample) const {
    const auto row = logits.span<float>();
    const auto best = std::ranges::max_element(row);
    double total = 0;
    for (const float logit : row) total += std::exp(static_cast<double>(logit) - static_cast<double>(*best));
    sample.guess = model_.class_names()[static_cast<size_t>(best - row.begin())];
    sample.probability = 1 / total;
  }

  std::vector<int32_t> first_slots(const RoutingRecord& route) const {
    std::vector<int32_t> experts;
    const Tensor all = on_host(ctx_, route.plan.expert_ids);
    const auto ids = all.span<int32_t>();
    for (int64_t n = model_.vit().routed_prefix_tokens(); n < route.plan.tokens; ++n)
      experts.push_back(ids[static_cast<size_t>(n * route.plan.slots)]);
    return experts;
  }

  ExecContext ctx_;
  LoadedModel& model_;
  const ImagePipeline& pipeline_;
  SampleFormat format_;
  SampleReader reader_;
  std::vector<size_t> shown_;
};

/// Samples of a data set in turn from its classes: the first of each, then the second of each, and so on.
std::vector<int64_t> in_turn(const ImageDataset& data) {
  std::vector<int64_t> met(data.class_names().size());
  std::vector<std::pair<int64_t, int64_t>> order;  // round, sample
  for (const int64_t i : balanced_indices(data, candidates)) order.emplace_back(met[static_cast<size_t>(data.label(i))]++, i);
  std::ranges::stable_sort(order, {}, [&](const auto& o) { return std::pair(o.first, data.label(o.second)); });
  std::vector<int64_t> samples;
  for (const auto& [round, sample] : order) samples.push_back(sample);
  return samples;
}

/// The first image of each class, then the first mistakes: not chosen for their looks.
std::vector<DemoSample> choose_samples(Looker& looker, const ImageDataset& data) {
  std::vector<DemoSample> chosen, mistakes, spare;
  for (const int64_t index : in_turn(data)) {
    if (chosen.size() == ordinary && mistakes.size() == wrong) break;
    DemoSample sample;
    try {
      sample = looker.look(index);
    } catch (const InputError&) {
      continue;  // a broken file was named by the evaluation
    }
    auto& kind = chosen.size() < ordinary ? chosen : sample.guess != sample.truth ? mistakes : spare;
    if (kind.size() < ordinary) kind.push_back(std::move(sample));
  }
  for (auto* more : {&mistakes, &spare})
    for (DemoSample& sample : *more)
      if (chosen.size() < ordinary + wrong) chosen.push_back(std::move(sample));
  return chosen;
}

std::string gini_text(const Evaluation& e) {
  std::string text;
  for (const RoutingMetrics& m : e.routing) text += fmt::format("{}block {}: {:.3f}", text.empty() ? "" : ", ", m.block, m.gini);
  return text.empty() ? "no layer with experts" : text;
}

DemoPicture make_picture(LoadedModel& model, const Evaluation& result, std::vector<DemoSample> samples) {
  const VitConfig& config = model.config().model;
  DemoPicture picture;
  picture.title = fmt::format("{:.2f} % of {} test images right", 100 * result.accuracy, result.images);
  picture.notes = {"Each patch has the colour of the expert that took it first.",
                   "Bars: the load that each expert took; dashed: equal shares."};
  picture.grid = config.image_size / config.patch;
  for (const size_t i : layers_shown(result.routing.size())) {
    const RoutingMetrics& m = result.routing[i];
    picture.layers.push_back({.block = m.block, .gini = m.gini, .load = m.load});
  }
  picture.samples = std::move(samples);
  return picture;
}

int show(const Options& options) {
  const auto note = [](const std::string& text) { std::fprintf(stderr, "note: %s\n", text.c_str()); };
  const int threads = resolve_threads(options.threads);
  Engine engine(threads, 0, options.device);
  LoadedModel model(engine, options.run, note);
  RunConfig config = model.config();
  ImagePipeline pipeline(config, engine.staging, threads, note);
  check_input(pipeline.has_evaluation(), "{} has no images to evaluate on", config.data.path);
  model.use_average(pipeline.has_training() ? &pipeline : nullptr, note);
  const auto run = [&](ExpertOrder order) {
    return evaluate(engine.ctx, model.vit(), pipeline, config.loss, evaluation_batch(config.train), nullptr, order);
  };
  const Evaluation result = run(ExpertOrder::own);
  fmt::print("accuracy   {:.2f} % of {} test images, by {}\n", 100 * result.accuracy, result.images, model.folder());
  fmt::print("load Gini  {} (0: every expert takes an equal share)\n", gini_text(result));
  if (!result.routing.empty()) {
    const double astray = run(ExpertOrder::shuffled).accuracy;
    const double lost = 100 * (result.accuracy - astray);
    fmt::print("routing    {}: {:.1f} points are lost when every token goes to the wrong experts ({:.2f} %)\n",
               lost >= 2 ? "matters" : "hardly matters", lost, 100 * astray);
  }
  Looker looker(engine.ctx, model, pipeline);
  const std::string out = options.out.empty() ? run_folder_of(options.run) + "/demo.png" : options.out;
  write_png(out, draw(make_picture(model, result, choose_samples(looker, pipeline.evaluation()))));
  fmt::print("picture    {}\n", out);
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app{"Tells what a trained run learned, and draws images with the experts that took their patches.", "ermoe-demo"};
  Options options;
  app.add_option("--run", options.run, "run folder; its best checkpoint is taken")->required();
  app.add_option("--out", options.out, "picture to write; as a rule RUN/demo.png");
  add_device_flag(app, options.device);
  app.add_option("--threads", options.threads, "0: the cores that this process may use")->check(CLI::Range(0, 4096));
  if (!parse_flags(app, argc, argv)) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  }
  refuse_silent_multi_launch();
  return show(options);
}

}  // namespace
}  // namespace ermoe

int main(int argc, char** argv) {
  ermoe::settle_thread_waiting(argv);
  return ermoe::guard_main("ermoe-demo", [&] { return ermoe::run(argc, argv); });
}
