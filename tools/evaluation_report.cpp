#include "tools/evaluation_report.h"

#include "core/error.h"
#include "core/file_io.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <numeric>

namespace ermoe {
namespace {

using nlohmann::ordered_json;

constexpr size_t most_class_lines = 30;

double percent(double share) { return 100 * share; }

int64_t images_of(const Evaluation& e, size_t y) {
  const size_t classes = e.class_accuracy.size();
  const auto row = e.confusion.begin() + static_cast<std::ptrdiff_t>(y * classes);
  return std::accumulate(row, row + static_cast<std::ptrdiff_t>(classes), int64_t{0});
}

/// Mutual information of experts and classes, and what chance gives.
std::string class_figures(const RoutingMetrics& m) {
  const std::string chance = fmt::format("{:.4f} ± {:.4f}", m.class_information_null, m.class_information_null_sd);
  return fmt::format(" {:>12.4f} {:>16} {:>6.2f}", m.class_information, chance, m.class_information_p);
}

/// The block's number in its tower: "text 1".
std::string block_name(const EvaluationReport& report, int64_t block) {
  const bool text = report.result.retrieval && block >= report.image_blocks;
  return text ? fmt::format("text {}", block - report.image_blocks) : std::to_string(block);
}

std::string routing_table(const EvaluationReport& report) {
  const std::vector<RoutingMetrics>& layers = report.result.routing;
  if (layers.empty()) return {};
  const bool classes = layers[0].class_information >= 0;
  const int width = report.result.retrieval ? 7 : 5;
  std::string text = fmt::format("\n{:>{}} {:>7} {:>9} {:>5} {:>8} {:>9} {:>6} {:>8} {:>8} {:>6}{}\n", "block", width, "gini", "max/mean",
                                 "dead", "entropy", "fallback", "free", "missing", "overlap", "churn",
                                 classes ? fmt::format(" {:>12} {:>16} {:>6}", "class info", "by chance", "p") : "");
  for (const RoutingMetrics& m : layers) {
    const auto figure = [](double value) { return value < 0 ? "n/a" : fmt::format("{:.3f}", value); };
    text += fmt::format("{:>{}} {:>7.3f} {:>9.2f} {:>5} {:>8.3f} {:>9.3f} {:>6.3f} {:>8.3f} {:>8} {:>6}{}\n", block_name(report, m.block),
                        width, m.gini, m.max_over_mean, m.dead_experts, m.entropy, m.fallback_rate, m.free_share, m.missing_rate,
                        figure(m.overlap), figure(m.churn), classes ? class_figures(m) : "");
  }
  return text;
}

std::string class_table(const EvaluationReport& report) {
  const Evaluation& e = report.result;
  std::vector<size_t> order;
  for (size_t y = 0; y < e.class_accuracy.size(); ++y)
    if (e.class_accuracy[y] >= 0) order.push_back(y);
  std::string text = "\nclass accuracy\n";
  if (order.size() > most_class_lines) {
    std::ranges::stable_sort(order, {}, [&](size_t y) { return e.class_accuracy[y]; });
    text = fmt::format("\nclass accuracy, the lowest {} of {} (--json has all)\n", most_class_lines, order.size());
    order.resize(most_class_lines);
  }
  for (const size_t y : order)
    text += fmt::format("  {:<32} {:>6.2f} %  of {}\n", printable(report.class_names[y]), percent(e.class_accuracy[y]), images_of(e, y));
  return text;
}

ordered_json routing_json(const EvaluationReport& report, const RoutingMetrics& m) {
  ordered_json layer;
  const bool text = report.result.retrieval && m.block >= report.image_blocks;
  layer["block"] = text ? m.block - report.image_blocks : m.block;
  if (report.result.retrieval) layer["tower"] = text ? "text" : "image";
  for (const auto& [name, value] : routing_values(m)) layer[name] = value;
  if (m.overlap < 0) layer["overlap"] = nullptr;
  if (m.churn < 0) layer["churn"] = nullptr;
  layer["load"] = m.load;
  return layer;
}

/// Accuracy, of all and by class, and who is taken for whom.
void add_classes(const EvaluationReport& report, ordered_json& out) {
  const Evaluation& e = report.result;
  out["images"] = e.images;
  out["accuracy"] = e.accuracy;
  out["top5"] = e.top5;
  out["loss"] = e.loss;
  if (report.shuffled_accuracy) {
    out["shuffled_accuracy"] = *report.shuffled_accuracy;
    out["points_lost_shuffled"] = percent(e.accuracy - *report.shuffled_accuracy);
  }
  out["classes"] = ordered_json::array();
  out["confusion"] = ordered_json::array();
  const size_t classes = e.class_accuracy.size();
  for (size_t y = 0; y < classes; ++y) {
    const double accuracy = e.class_accuracy[y];
    out["classes"].push_back({{"name", report.class_names[y]},
                              {"images", images_of(e, y)},
                              {"accuracy", accuracy < 0 ? ordered_json(nullptr) : ordered_json(accuracy)}});
    const auto row = e.confusion.begin() + static_cast<std::ptrdiff_t>(y * classes);
    out["confusion"].push_back(std::vector<int64_t>(row, row + static_cast<std::ptrdiff_t>(classes)));
  }
}

/// Recalls in percent, of all images and of folds of 1,000.
void add_retrieval(const EvaluationReport& report, ordered_json& out) {
  const RetrievalReport& retrieval = *report.result.retrieval;
  out["part"] = report.part;
  out["images"] = retrieval.all.images;
  out["captions"] = retrieval.all.captions;
  out["loss"] = report.result.loss;
  for (const auto& [name, value] : retrieval_values(retrieval.all)) out[name] = value;
  if (retrieval.all.not_numbers > 0) out["not_numbers"] = retrieval.all.not_numbers;
  if (retrieval.folds)
    for (const auto& [name, value] : retrieval_values(*retrieval.folds)) out["folds_of_1000"][name] = value;
  if (report.shuffled_rsum) out["shuffled_rsum"] = *report.shuffled_rsum;
}

std::string retrieval_text(const EvaluationReport& report) {
  const RetrievalReport& retrieval = *report.result.retrieval;
  std::string text = fmt::format("data       {}, part \"{}\": {} images, {} captions\nloss       {:.4f}\n", report.data, report.part,
                                 retrieval.all.images, retrieval.all.captions, report.result.loss);
  if (report.shuffled_rsum)
    text += fmt::format("shuffled   rsum {:.2f} with every token at the wrong experts: {:.2f} lost\n", *report.shuffled_rsum,
                        retrieval.all.rsum() - *report.shuffled_rsum);
  return text + "\n" + describe(retrieval);
}

}  // namespace

std::string evaluation_text(const EvaluationReport& report) {
  const Evaluation& e = report.result;
  std::string text = fmt::format("model      {}, step {}{}\n", report.checkpoint, report.step, report.averaged ? ", averaged weights" : "");
  if (report.regression) {
    text += fmt::format("data       {}: {} volumes\nloss       {:.4f}\n\n", report.data, report.regression->plain.count, e.loss);
    return text + regression_text(*report.regression) + routing_table(report);
  }
  if (e.retrieval) return text + retrieval_text(report) + routing_table(report);
  text += fmt::format("data       {}: {} images of {} classes\n", report.data, e.images, report.class_names.size());
  text += fmt::format("top-1      {:.2f} %\ntop-5      {:.2f} %\nloss       {:.4f}\n", percent(e.accuracy), percent(e.top5), e.loss);
  if (report.shuffled_accuracy) {
    text += fmt::format("shuffled   {:.2f} % with every token at the wrong experts: {:.2f} points lost\n",
                        percent(*report.shuffled_accuracy), percent(e.accuracy - *report.shuffled_accuracy));
  }
  return text + routing_table(report) + class_table(report);
}

std::string evaluation_json(const EvaluationReport& report) {
  const Evaluation& e = report.result;
  ordered_json out;
  out["checkpoint"] = report.checkpoint;
  out["step"] = report.step;
  out["averaged_weights"] = report.averaged;
  out["data"] = report.data;
  if (e.retrieval) {
    add_retrieval(report, out);
  } else if (report.regression) {
    out["loss"] = e.loss;
    out["regression"] = regression_json(*report.regression);
  } else {
    add_classes(report, out);
  }
  out["routing"] = ordered_json::array();
  for (const RoutingMetrics& m : e.routing) out["routing"].push_back(routing_json(report, m));
  return out.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace ermoe
