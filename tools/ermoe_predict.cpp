// ermoe-predict: images in, class names and probabilities out; or words in, and the images that they find. Ranking and writing:
// tools/prediction.h; searching: tools/query.h.
#include "core/comm.h"
#include "core/error.h"
#include "core/file_io.h"
#include "data/image_files.h"
#include "models/checkpoint_store.h"
#include "tools/command_line.h"
#include "tools/config_check.h"
#include "tools/contact_sheet.h"
#include "tools/given_images.h"
#include "tools/loaded_model.h"
#include "tools/main_guard.h"
#include "tools/model_choice.h"
#include "tools/prediction.h"
#include "tools/query.h"
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
  std::vector<std::string> queries;
  std::string captions, sheet;
  std::string format = "csv";
  int64_t top = 0, threads = 0;  // top 0: not given

  int64_t top_or(int64_t usual) const { return top > 0 ? top : usual; }
  PredictionFormat written() const { return format == "json" ? PredictionFormat::json : PredictionFormat::csv; }
  bool searches() const { return !queries.empty() || !captions.empty(); }
};

void complain(const std::string& text) { std::fprintf(stderr, "ermoe-predict: %s\n", text.c_str()); }
void print(const std::string& text) { std::fputs(text.c_str(), stdout); }

/// Predicts every readable image in order; returns how many could not be read. Each of those is named on stderr.
int64_t predict_all(Engine& engine, LoadedModel& model, const ImageDataset& images, const Options& options, int threads) {
  const RunConfig& config = model.config();
  ExecContext ctx = engine.ctx;
  ctx.mode = Mode::eval;
  PredictionWriter writer(options.written(), model.class_names());
  print(writer.head());
  const int64_t unread =
      for_each_given_batch(engine, config, images, threads, complain, [&](const std::vector<int64_t>& samples, const Variable& batch) {
        ForwardPass pass;
        const Variable logits = model.vit().forward(ctx, batch, pass);
        const auto ranked = rank_classes(on_host(ctx, logits.value), config.loss.kind, options.top_or(5));
        for (size_t b = 0; b < ranked.size(); ++b) print(writer.entry({images.name(samples[b]), ranked[b]}));
      });
  print(writer.foot());
  return unread;
}

/// Ranks images for each query, and shows the best on a contact sheet; returns how many could not be read.
int64_t search_images(const Searcher& searcher, const LoadedModel& model, const ImageDataset& images, const Options& options) {
  const Found found = find_images(searcher, options.queries, images, options.top_or(20));
  SearchWriter writer(options.written(), SearchDirection::images_of_query);
  print(writer.head());
  for (size_t q = 0; q < options.queries.size(); ++q) {
    std::vector<NamedMatch> best;
    for (const Match& match : found.matches[q]) best.push_back({images.name(match.index), match.score});
    print(writer.entry(options.queries[q], best));
  }
  print(writer.foot());
  if (found.unread == images.size()) {
    complain(fmt::format("no image could be read, so no contact sheet is written{}",
                         path_exists(options.sheet) ? fmt::format(": {} stays as it was", options.sheet) : ""));
    return found.unread;
  }
  const std::string source = fmt::format("{} images were searched by {}{}.", images.size() - found.unread, model.folder(),
                                         found.unread > 0 ? fmt::format("; {} could not be read", found.unread) : "");
  const FoundSheet made = sheet_of(options.queries, found, images, source, complain);
  const std::string page = contact_sheet_page(made.sheet);
  write_file(options.sheet, page);
  complain(fmt::format("the contact sheet is {} ({:.1f} MB; opens in any browser, without a network)", options.sheet,
                       static_cast<double>(page.size()) / 1e6));
  return found.unread + made.unread;
}

/// The best of the given captions for each image; returns how many images could not be read.
int64_t choose_captions(const Searcher& searcher, const ImageDataset& images, const Options& options) {
  const std::vector<std::string> captions = read_captions_file(options.captions);
  SearchWriter writer(options.written(), SearchDirection::captions_of_image);
  print(writer.head());
  const int64_t unread =
      find_captions(searcher, captions, images, options.top_or(1), [&](int64_t image, const std::vector<Match>& matches) {
        std::vector<NamedMatch> best;
        for (const Match& match : matches) best.push_back({captions[static_cast<size_t>(match.index)], match.score});
        print(writer.entry(images.name(image), best));
      });
  print(writer.foot());
  return unread;
}

/// The ages of volumes; returns how many could not be read. Each of those is named on stderr.
int64_t predict_volumes(Engine& engine, std::vector<LoadedModel>& models, const Options& options) {
  check_input(options.regions.empty() || options.files.size() == 1, "--regions is the map of one volume, and {} are given",
              options.files.size());
  std::vector<VolumePrediction> predictions;
  for (const std::string& file : options.files) {
    try {
      predictions.push_back(predict_volume(engine, models, file, {.regions = options.regions, .experts = options.top_or(5)}));
    } catch (const InputError& fault) {
      complain(fault.what());
    }
  }
  print(volume_predictions_text(predictions, options.written()));
  return std::ssize(options.files) - std::ssize(predictions);
}

/// Options that do not belong together, and words that nothing can be searched by: known before a model is loaded.
void check_options(Options& options) {
  check_input(options.queries.empty() || options.captions.empty(),
              "--query ranks images for words and --captions words for images: give one of them");
  check_input(!options.searches() || options.regions.empty(), "--regions is the map of a volume, and --{} looks at images",
              options.captions.empty() ? "query" : "captions");
  check_input(options.sheet.empty() || !options.queries.empty(), "--sheet shows what --query finds, and no --query is given");
  for (const std::string& query : options.queries) check_words(query, "--query");
  if (options.sheet.empty()) options.sheet = "found.html";
}

/// A dual encoder is asked by words and everything else is not.
void check_towers(const RunConfig& config, const std::string& folder, const Options& options) {
  const bool pairs = task_of(config) == Task::pairs;
  check_input(pairs || !options.searches(), "{}: has no text tower, so {} has nothing to compare images with", folder,
              options.captions.empty() ? "--query" : "--captions");
  check_input(!pairs || options.searches(),
              "{}: is a dual encoder, which predicts no classes: give --query \"some words\" or --captions FILE", folder);
}

/// `searched`: the images of a search.
int64_t answer(Engine& engine, std::vector<LoadedModel>& models, const Options& options, const ImageDataset* searched, int threads) {
  LoadedModel& model = models.front();
  if (model.config().model.dimensions == 3) return predict_volumes(engine, models, options);
  if (searched == nullptr) return predict_all(engine, model, *open_image_files(options.files), options, threads);
  const Searcher searcher{.engine = engine,
                          .model = model.dual(),
                          .tokenizer = *model.tokenizer(),
                          .config = model.config(),
                          .threads = threads,
                          .note = complain};
  return options.captions.empty() ? search_images(searcher, model, *searched, options) : choose_captions(searcher, *searched, options);
}

int predict(Options options) {
  check_options(options);
  const auto searched = options.searches() ? open_image_files(options.files) : nullptr;
  if (!options.queries.empty()) check_sheet(options.sheet, *searched);  // before any work: nobody waits for a search that cannot end well
  const int threads = resolve_threads(options.threads);
  Engine engine(threads, 0, options.device);
  if (!engine.gpu && !engine.device_note.empty()) complain("computing on the CPU: " + engine.device_note);
  std::vector<LoadedModel> models;
  const std::vector<std::string> folders = models_in(options.model);
  for (const std::string& folder : folders) {
    // Of a cross-validation the last weights count, as in its report: the best ones were chosen by those held out.
    models.emplace_back(engine, folders.size() > 1 ? find_checkpoint(folder, "latest").folder : folder, complain, Precision::auto_,
                        Towers::any);
    check_towers(models.back().config(), models.back().folder(), options);
    models.back().use_average(nullptr, complain);
  }
  return answer(engine, models, options, searched.get(), threads) > 0 ? 1 : 0;
}

int run(int argc, char** argv) {
  CLI::App app{
      "Predicts the classes of images, or the ages of brains: with a spread over the models of a cross-validation's folder, or over varied "
      "copies. By a dual encoder: finds the images that words tell of (--query), or the words that tell of an image (--captions). A broken "
      "file is named and costs only itself; the exit code is then 1.",
      "ermoe-predict"};
  Options options;
  app.add_option("--run,--checkpoint", options.model, "run folder (its best checkpoint is taken) or a checkpoint's own folder")->required();
  app.add_option("files", options.files, "images, or folders of images; NIfTI volumes, of which it says the age")->required();
  app.add_option("--query", options.queries, "what to look for among the images, in words; may be given several times")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  app.add_option("--sheet", options.sheet, "of --query: where the contact sheet is written, a page of HTML [found.html]");
  app.add_option("--captions", options.captions, "a text file of captions, one a line: the best of them for each image");
  app.add_option("--regions", options.regions, "of a volume: its map of regions, where the model's experts have such");
  app.add_option("--top", options.top, "classes an image, or experts a volume [5]; images a query [20], captions an image [1]")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  app.add_option("--format", options.format, "csv or json [csv]")->check(CLI::IsMember({"csv", "json"}));
  add_device_flag(app, options.device);
  app.add_option("--threads", options.threads, "0: the cores that this process may use")->check(CLI::Range(0, 4096));
  if (!parse_flags(app, argc, argv)) {
    print(app.help());
    return 0;
  }
  refuse_silent_multi_launch();
  return predict(std::move(options));
}

}  // namespace
}  // namespace ermoe

int main(int argc, char** argv) {
  ermoe::settle_thread_waiting(argv);
  return ermoe::guard_main("ermoe-predict", [&] { return ermoe::run(argc, argv); });
}
