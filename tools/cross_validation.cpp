#include "tools/cross_validation.h"

#include "core/file_io.h"
#include "core/gather.h"
#include "data/csv.h"
#include "data/encode_png.h"
#include "tools/age_scatter.h"
#include "tools/regression_report.h"
#include "tools/run_folder.h"
#include "tools/trainer.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace ermoe {
namespace {

enum class FoldState { absent, begun, done };

/// As rank 0 sees it.
FoldState state_of(const std::string& folder, Ranks* ranks) {
  std::string state = path_exists(folder + "/predictions.csv") ? "done" : path_exists(folder + "/checkpoints/latest") ? "begun" : "";
  if (ranks != nullptr) state = broadcast_text(ranks->world(), state);
  return state == "done" ? FoldState::done : state == "begun" ? FoldState::begun : FoldState::absent;
}

double number(const std::string& text, const std::string& path) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  check_input(!text.empty() && *end == '\0' && std::isfinite(value), "{}: '{}' is no number", path, printable(text));
  return value;
}

/// What the run of this fold left behind.
std::vector<AgePrediction> read_predictions(const std::string& path, int fold) {
  const std::string text = read_file(path, size_t{64} << 20);
  CsvReader rows(text, ',', path);
  std::vector<std::string> fields;
  std::vector<AgePrediction> all;
  rows.next(fields);
  while (rows.next(fields)) {
    check_input(fields.size() == 7, "{}: line {} has {} fields, not 7", path, rows.line(), fields.size());
    all.push_back({.subject = fields[0],
                   .age = number(fields[1], path),
                   .predicted = number(fields[2], path),
                   .training_mean = number(fields[4], path),
                   .fold = fold,
                   .split = fields[6]});
    check_input(number(fields[5], path) == fold, "{}: line {} is of fold {}, not {}", path, rows.line(), printable(fields[5]), fold);
  }
  check_input(!all.empty(), "{} holds no predictions", path);
  return all;
}

/// Each fold by the line through the others.
void correct_folds(std::vector<AgePrediction>& all, size_t folds) {
  std::vector<BiasCorrection> lines;
  for (int fold = 1; fold <= static_cast<int>(folds); ++fold) {
    std::vector<double> truth, predicted;
    for (const AgePrediction& p : all) {
      if (p.fold == fold) continue;
      truth.push_back(p.age);
      predicted.push_back(p.predicted);
    }
    lines.push_back(fit_bias(truth, predicted));
    if (!lines.back().usable()) return;
  }
  for (AgePrediction& p : all) p.corrected = lines[static_cast<size_t>(*p.fold) - 1](p.predicted);
}

void report(const std::string& out) {
  const std::vector<AgePrediction> all = held_out_predictions(out);
  const RegressionReport figures = regression_report(all);
  write_file(out + "/predictions.csv", predictions_csv(all));
  write_file(out + "/report.json", regression_json(figures).dump(1) + "\n");
  write_png(out + "/scatter.png", age_scatter(all, "everyone held out once"));
  std::printf(
      "\n%zu subjects, each predicted by the model that never saw them\n%s\nwritten: %s/predictions.csv, report.json, scatter.png\n",
      all.size(), regression_text(figures).c_str(), out.c_str());
}

}  // namespace

bool wants_cross_validation(const RunConfig& config) { return config.data.folds > 0 && config.data.fold == 0; }

int cross_validate(const RunConfig& config, Ranks* ranks) {
  check_input(config.train.resume.empty(), "train.resume: a cross-validation goes on by the same command again, with the same train.out");
  const std::string name = config.train.name.empty() ? "cross-validation" : config.train.name;
  const std::string out = config.train.out.empty() ? "runs/" + name : config.train.out;
  const bool first = ranks == nullptr || ranks->world().rank() == 0;
  for (int64_t fold = 1; fold <= config.data.folds; ++fold) {
    const std::string folder = fmt::format("{}/fold-{}", out, fold);
    const FoldState state = state_of(folder, ranks);
    if (state != FoldState::done) {
      RunConfig one = config;
      one.data.fold = fold;
      one.train.out = folder;
      if (state == FoldState::begun) one.train.resume = folder;
      Trainer trainer(one, ranks);
      trainer.run();
      if (!trainer.finished()) return 0;  // a signal came: it said so
    }
  }
  if (first) report(out);
  return 0;
}

std::vector<AgePrediction> held_out_predictions(const std::string& folder) {
  const std::vector<std::string> folds = models_in(folder);
  check_input(folds.size() > 1, "{} is not the folder of a cross-validation: it holds no fold-1 and fold-2", folder);
  std::vector<AgePrediction> all;
  for (size_t i = 0; i < folds.size(); ++i) {
    check_input(path_exists(folds[i] + "/predictions.csv"), "{} is not done: start its training again", folds[i]);
    const std::vector<AgePrediction> own = read_predictions(folds[i] + "/predictions.csv", static_cast<int>(i) + 1);
    all.insert(all.end(), own.begin(), own.end());
  }
  correct_folds(all, folds.size());
  std::ranges::sort(all, {}, &AgePrediction::subject);
  return all;
}

std::string compare_text(const std::string& folder, const std::string& other) {
  const std::vector<AgePrediction> a = held_out_predictions(folder), b = held_out_predictions(other);
  const auto same = [](const AgePrediction& x, const AgePrediction& y) { return x.subject == y.subject && x.age == y.age; };
  check_input(std::ranges::equal(a, b, same), "{} and {} are not of the same subjects", folder, other);
  std::vector<double> truth, of_a, of_b;
  for (size_t i = 0; i < a.size(); ++i) {
    truth.push_back(a[i].age);
    of_a.push_back(a[i].predicted);
    of_b.push_back(b[i].predicted);
  }
  return paired_text(folder, other, paired_difference(truth, of_a, of_b)) + "\n";
}

}  // namespace ermoe
