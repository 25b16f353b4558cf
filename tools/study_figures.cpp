#include "tools/study_figures.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"
#include "data/csv.h"
#include "models/summary.h"
#include "tools/config_io.h"
#include "tools/model_choice.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <optional>

namespace ermoe {
namespace {

using nlohmann::json;

constexpr size_t largest_table = size_t{256} << 20;

constexpr std::array kinds = {
    FigureKind{"accuracy", "accuracy, %", 100, 2},
    FigureKind{"mae", "MAE", 1, 3},
    FigureKind{"rsum", "rsum", 1, 1},
    FigureKind{"i2t_r10", "R@10 image to text, %", 1, 1},
    FigureKind{"t2i_r10", "R@10 text to image, %", 1, 1},
    FigureKind{"loss", "loss", 1, 4},
    FigureKind{"gini", "Gini", 1, 3},
    FigureKind{"max_over_mean", "max/mean", 1, 2},
    FigureKind{"dead_experts", "dead", 1, 1},
    FigureKind{"fallback_rate", "fallback", 1, 3},
    FigureKind{"overlap", "overlap", 1, 3},
    FigureKind{"class_information", "class info", 1, 3},
    FigureKind{"class_information_null", "by chance", 1, 3},
    FigureKind{"churn", "churn", 1, 3},
    FigureKind{"purity_router", "purity, router", 1, 3},
    FigureKind{"purity_experts", "purity, experts", 1, 3},
    FigureKind{"parameters", "parameters, M", 1e-6, 2},
    FigureKind{"active_parameters", "active, M", 1e-6, 2},
    FigureKind{"forward_flops", "GFLOP", 1e-9, 3},
    FigureKind{"images_per_s", "images/s", 1, 0},
    FigureKind{"memory_mib", "MiB", 1, 0},
};

/// Of several numbers, as they come.
class Mean {
 public:
  void add(double value) { sum_ += value, ++count_; }
  std::optional<double> value() const { return count_ > 0 ? std::optional(sum_ / count_) : std::nullopt; }
  void into(Figures& figures, const std::string& key) const {
    if (const auto mean = value()) figures[key] = *mean;
  }

 private:
  double sum_ = 0, count_ = 0;
};

bool is_number(const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number();
}

double number_at(const json& object, const std::string& key, const std::string& path) {
  check_input(is_number(object, key), "{}: has no number {}", path, key);
  return object.at(key).get<double>();
}

/// What ermoe-eval says of the last weights.
void read_evaluation(const std::string& path, RunFigures& run) {
  const json report = read_json(path);
  check_input(report.is_object() && report.contains("routing") && report["routing"].is_array(), "{}: is no evaluation", path);
  if (is_number(report, "loss")) run.values["loss"] = report["loss"].get<double>();  // null where it is not finite
  if (report.contains("regression"))
    run.values["mae"] = number_at(report["regression"].value("as_predicted", json::object()), "mae", path);
  else if (report.contains("rsum"))
    for (const char* key : {"rsum", "i2t_r10", "t2i_r10"}) run.values[key] = number_at(report, key, path);
  else
    run.values["accuracy"] = number_at(report, "accuracy", path);
  for (const json& layer : report["routing"]) {
    LayerFigures& of = run.layers.emplace_back();
    of.block = static_cast<int64_t>(number_at(layer, "block", path));
    for (const auto& [key, value] : layer.items())
      if (value.is_number() && key != "block") of.values[key] = value.get<double>();
  }
}

/// Means over layers with experts; dead experts are counted together.
void join_layers(RunFigures& run) {
  for (const char* key :
       {"gini", "max_over_mean", "dead_experts", "fallback_rate", "overlap", "class_information", "class_information_null"}) {
    Mean mean;
    for (const LayerFigures& layer : run.layers)
      if (const auto found = layer.values.find(key); found != layer.values.end()) mean.add(found->second);
    mean.into(run.values, key);
  }
  if (run.values.contains("dead_experts")) run.values["dead_experts"] *= static_cast<double>(run.layers.size());
}

bool is_of(const std::string& name, const char* what) { return name == what || name.ends_with(std::string("/") + what); }

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/// Where a row of the log has `what`, of one layer or term or several: a point of its course.
void add_point(const json& row, const char* what, Courses& courses) {
  Mean mean;
  for (const auto& [name, value] : row.items())
    if (value.is_number() && is_of(name, what) && (value.get<double>() >= 0 || !is_of(name, "churn"))) mean.add(value.get<double>());
  if (const auto value = mean.value()) courses[what].push_back({.step = row.value("step", int64_t{0}), .value = *value});
}

/// What was logged on the way.
void read_metrics(const std::vector<json>& rows, RunFigures& run) {
  std::vector<double> speeds;
  double memory = 0;
  for (const json& row : rows) {
    if (row.value("split", "") == "train") {
      if (is_number(row, "images_per_s")) speeds.push_back(row["images_per_s"].get<double>());
      if (is_number(row, "memory_mib")) memory = std::max(memory, row["memory_mib"].get<double>());
    } else {
      add_point(row, "churn", run.courses);
    }
    for (const char* what : {"purity_router", "purity_experts"}) add_point(row, what, run.courses);
  }
  for (const auto& [what, points] : run.courses) {
    Mean mean;
    for (const CoursePoint& point : points) mean.add(point.value);
    mean.into(run.values, what);
  }
  if (speeds.size() > 1) speeds.erase(speeds.begin());  // the first steps also find memory and are recorded
  if (!speeds.empty()) run.values["images_per_s"] = median(std::move(speeds));
  if (memory > 0) run.values["memory_mib"] = memory;
}

/// What the model costs that the run recorded, sizes read off the data included.
void count_model(const std::string& path, Figures& figures) {
  RunConfig config;
  apply_json(config, read_json(path, kSettingsLimits), path);
  const std::unique_ptr<Model> model = make_model(config);
  const ModelSummary cost = summarize(*model);
  figures["parameters"] = static_cast<double>(cost.parameters);
  figures["active_parameters"] = static_cast<double>(cost.active_parameters);
  figures["forward_flops"] = cost.forward_flops;
}

/// By sample, from ermoe-eval's table: sample, truth, prediction, and perhaps more.
std::map<std::string, double> read_samples(const std::string& path, bool numbers) {
  std::map<std::string, double> samples;
  if (!path_exists(path)) return samples;
  const std::string text = read_file(path, largest_table);
  CsvReader rows(text, ',', path);
  std::vector<std::string> fields;
  rows.next(fields);
  while (rows.next(fields)) {
    check_input(fields.size() >= 3, "{}: line {} has {} fields", path, rows.line(), fields.size());
    const double apart = std::abs(std::strtod(fields[2].c_str(), nullptr) - std::strtod(fields[1].c_str(), nullptr));
    samples[fields[0]] = numbers ? apart : apart == 0 ? 1 : 0;
  }
  return samples;
}

}  // namespace

std::span<const FigureKind> figure_kinds() { return kinds; }

const FigureKind& figure_kind(const std::string& key) {
  const auto found = std::ranges::find(kinds, key, [](const FigureKind& kind) { return std::string(kind.key); });
  check(found != kinds.end(), "[study] no figure is called {}", key);
  return *found;
}

RunFigures figures_of(const StudyRun& run, std::string_view evaluation) {
  RunFigures figures{.seed = run.seed,
                     .folder = run.folder,
                     .values = {},
                     .layers = {},
                     .courses = {},
                     .at_once = record_of(run).at_once,
                     .by_sample = {}};
  read_evaluation(run.file(evaluation), figures);
  join_layers(figures);
  read_metrics(metrics_of(run), figures);
  count_model(run.file("config.json"), figures.values);
  if (!figures.values.contains("rsum")) figures.by_sample = read_samples(run.file(predictions_file), figures.values.contains("mae"));
  return figures;
}

std::string figure_text(const RunFigures& figures) {
  if (const auto rsum = figures.values.find("rsum"); rsum != figures.values.end()) return fmt::format("rsum {:.1f}", rsum->second);
  const auto accuracy = figures.values.find("accuracy");
  return accuracy != figures.values.end() ? fmt::format("accuracy {:.2f} %", 100 * accuracy->second)
                                          : fmt::format("MAE {:.3f}", figures.values.at("mae"));
}

}  // namespace ermoe
