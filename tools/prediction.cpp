#include "tools/prediction.h"

#include "core/error.h"
#include "data/csv.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace ermoe {
namespace {

std::vector<double> probabilities(const float* logits, size_t count, LossKind kind) {
  std::vector<double> p(logits, logits + count);
  if (kind == LossKind::sigmoid) {
    for (double& x : p) x = 1 / (1 + std::exp(-x));
    return p;
  }
  const double largest = *std::ranges::max_element(p);
  double total = 0;
  for (double& x : p) total += x = std::exp(x - largest);
  for (double& x : p) x /= total;
  return p;
}

/// One element of an array that is written piece by piece.
std::string array_element(const nlohmann::ordered_json& entry, bool first) {
  return fmt::format("{}\n{}", first ? "" : ",", entry.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

struct SearchNames {
  const char *subject, *list, *object;
};

SearchNames names_of(SearchDirection direction) {
  return direction == SearchDirection::images_of_query ? SearchNames{"query", "images", "file"}
                                                       : SearchNames{"file", "captions", "caption"};
}

}  // namespace

std::vector<std::vector<ClassProbability>> rank_classes(const Tensor& logits, LossKind kind, int64_t count) {
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1], kept = std::min(count, classes);
  std::vector<std::vector<ClassProbability>> all;
  for (int64_t b = 0; b < rows; ++b) {
    const std::vector<double> p = probabilities(logits.data<float>() + b * classes, static_cast<size_t>(classes), kind);
    std::vector<ClassProbability> ranked;
    for (const double value : p) ranked.push_back({std::ssize(ranked), value});
    std::ranges::stable_sort(ranked, std::ranges::greater{}, &ClassProbability::probability);
    ranked.resize(static_cast<size_t>(kept));
    all.push_back(std::move(ranked));
  }
  return all;
}

std::string PredictionWriter::head() const { return format_ == PredictionFormat::csv ? "file,rank,class,probability\n" : "["; }

std::string PredictionWriter::foot() const { return format_ == PredictionFormat::csv ? "" : first_ ? "]\n" : "\n]\n"; }

std::string PredictionWriter::entry(const Prediction& prediction) {
  const bool first = std::exchange(first_, false);
  const auto name = [&](const ClassProbability& c) { return class_names_.at(static_cast<size_t>(c.index)); };
  std::string text;
  if (format_ == PredictionFormat::csv) {
    int rank = 0;
    for (const ClassProbability& c : prediction.best)
      text += fmt::format("{},{},{},{:.6f}\n", csv_field(prediction.file), ++rank, csv_field(name(c)), c.probability);
    return text;
  }
  nlohmann::ordered_json entry;
  entry["file"] = prediction.file;
  entry["predictions"] = nlohmann::ordered_json::array();
  for (const ClassProbability& c : prediction.best)
    entry["predictions"].push_back({{"class", name(c)}, {"index", c.index}, {"probability", c.probability}});
  return array_element(entry, first);
}

std::string SearchWriter::head() const {
  const SearchNames names = names_of(direction_);
  return format_ == PredictionFormat::csv ? fmt::format("{},rank,score,{}\n", names.subject, names.object) : "[";
}

std::string SearchWriter::foot() const { return format_ == PredictionFormat::csv ? "" : first_ ? "]\n" : "\n]\n"; }

std::string SearchWriter::entry(const std::string& subject, const std::vector<NamedMatch>& best) {
  const bool first = std::exchange(first_, false);
  if (format_ == PredictionFormat::csv) {
    std::string text;
    int rank = 0;
    for (const NamedMatch& match : best)
      text += fmt::format("{},{},{:.6f},{}\n", csv_field(subject), ++rank, match.score, csv_field(match.name));
    return text;
  }
  const SearchNames names = names_of(direction_);
  nlohmann::ordered_json entry{{names.subject, subject}, {names.list, nlohmann::ordered_json::array()}};
  for (const NamedMatch& match : best)
    entry[names.list].push_back({{names.object, match.name}, {"score", std::strtod(fmt::format("{:.6f}", match.score).c_str(), nullptr)}});
  return array_element(entry, first);
}

}  // namespace ermoe
