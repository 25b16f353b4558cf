#include "tools/regression_report.h"

#include "core/error.h"
#include "data/csv.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace ermoe {
namespace {

using nlohmann::ordered_json;

using Metrics = std::optional<RegressionMetrics>;

std::string signed_years(double years) { return fmt::format("{:+.2f}", years); }

std::string correlation(const std::optional<double>& r) { return r ? fmt::format("{:.3f}", *r) : "undefined"; }

std::string interval_text(const Interval& interval) { return fmt::format("{:.2f} to {:.2f}", interval.low, interval.high); }

std::string mae_text(const RegressionMetrics& m) {
  return m.mae_error ? fmt::format("{:.2f} ± {:.2f}", m.mae, *m.mae_error) : fmt::format("{:.2f}", m.mae);
}

/// One figure, as predicted and corrected.
template <typename Fn>
std::string line(const char* what, const RegressionReport& report, Fn&& figure) {
  return fmt::format("{:<20} {:>16}  {:>16}\n", what, figure(report.plain), report.corrected ? figure(*report.corrected) : "none");
}

std::string decade_table(const RegressionReport& report) {
  std::string text =
      fmt::format("\n{:<9} {:>8} {:>8} {:>8} {:>15} {:>14}\n", "age", "subjects", "MAE", "gap", "corrected MAE", "corrected gap");
  for (size_t i = 0; i < report.plain.decades.size(); ++i) {
    const DecadeError& d = report.plain.decades[i];
    text += fmt::format("{:<9} {:>8} {:>8.2f} {:>+8.2f}", fmt::format("{} to {}", d.from, d.from + 9), d.count, d.mae, d.mean_gap);
    if (!report.corrected) {
      text += fmt::format(" {:>15} {:>14}\n", "none", "none");
      continue;
    }
    const DecadeError& c = report.corrected->decades.at(i);  // by true age: the same decades
    text += fmt::format(" {:>15.2f} {:>+14.2f}\n", c.mae, c.mean_gap);
  }
  return text;
}

ordered_json number(const std::optional<double>& value) { return value ? ordered_json(*value) : ordered_json(nullptr); }

ordered_json metrics_json(const RegressionMetrics& m) {
  ordered_json out;
  out["mae"] = m.mae;
  out["mae_error"] = number(m.mae_error);
  out["mae_interval"] = {m.mae_interval.low, m.mae_interval.high};
  out["rmse"] = m.rmse;
  out["r"] = number(m.r);
  out["r2"] = number(m.r2);
  out["mean_gap"] = m.mean_gap;
  out["gap_age_r"] = number(m.gap_age_r);
  out["decades"] = ordered_json::array();
  for (const DecadeError& d : m.decades)
    out["decades"].push_back({{"from", d.from}, {"subjects", d.count}, {"mae", d.mae}, {"mean_gap", d.mean_gap}});
  return out;
}

}  // namespace

void apply_correction(const BiasCorrection& correction, std::span<AgePrediction> predictions) {
  for (AgePrediction& p : predictions) p.corrected = correction.usable() ? std::optional(correction(p.predicted)) : std::nullopt;
}

RegressionReport regression_report(std::span<const AgePrediction> predictions, const BootstrapOptions& bootstrap) {
  std::vector<double> truth, predicted, corrected, means;
  for (const AgePrediction& p : predictions) {
    truth.push_back(p.age);
    predicted.push_back(p.predicted);
    if (p.corrected) corrected.push_back(*p.corrected);
    if (p.training_mean) means.push_back(*p.training_mean);
  }
  if (corrected.size() < truth.size()) corrected.clear();
  if (means.size() < truth.size()) means.clear();
  return regression_report({.truth = truth, .predicted = predicted, .corrected = corrected, .training_means = means}, bootstrap);
}

std::string regression_text(const RegressionReport& report) {
  using M = const RegressionMetrics&;
  std::string text =
      fmt::format("{:<20} {:>16}  {:>16}\n", fmt::format("{} volumes, in years", report.plain.count), "as predicted", "bias-corrected");
  text += line("MAE", report, [](M m) { return mae_text(m); });
  text += line("  95 % interval", report, [](M m) { return interval_text(m.mae_interval); });
  text += line("RMSE", report, [](M m) { return fmt::format("{:.2f}", m.rmse); });
  text += line("Pearson r", report, [](M m) { return correlation(m.r); });
  text += line("R²", report, [](M m) { return correlation(m.r2); });
  text += line("mean gap", report, [](M m) { return signed_years(m.mean_gap); });
  text += line("r of gap and age", report, [](M m) { return correlation(m.gap_age_r); });
  if (report.mean_predictor_mae)
    text += fmt::format("{:<20} {:>16.2f}  (the mean age of the training subjects, said to everyone)\n", "mean predictor's MAE",
                        *report.mean_predictor_mae);
  if (!report.corrected) text += "no bias correction: no training predictions that follow age are known for all volumes\n";
  if (!report.plain.r) text += "correlations are undefined where predictions or ages are all the same\n";
  return text + decade_table(report);
}

std::string paired_text(const std::string& a, const std::string& b, const PairedDifference& d) {
  const std::string error = d.error ? fmt::format(" ± {:.2f}", *d.error) : "";
  return fmt::format("{} - {}: MAE {}{} years (95 % interval {:+.2f} to {:+.2f}), better for {:.1f} % of {}\n", a, b, signed_years(d.mean),
                     error, d.interval.low, d.interval.high, 100 * d.better_share, d.count);
}

ordered_json regression_json(const RegressionReport& report) {
  ordered_json out;
  out["volumes"] = report.plain.count;
  out["as_predicted"] = metrics_json(report.plain);
  out["corrected"] = report.corrected ? metrics_json(*report.corrected) : ordered_json(nullptr);
  out["mean_predictor_mae"] = number(report.mean_predictor_mae);
  return out;
}

namespace {

std::string field_of(const std::optional<double>& value) { return value ? fmt::format("{:.4f}", *value) : std::string(); }

}  // namespace

std::string predictions_csv(std::span<const AgePrediction> predictions) {
  std::string text = "participant_id,age,predicted,corrected,training_mean,fold,split\n";
  for (const AgePrediction& p : predictions)
    text += fmt::format("{},{},{:.4f},{},{},{},{}\n", csv_field(p.subject), p.age, p.predicted, field_of(p.corrected),
                        field_of(p.training_mean), p.fold ? std::to_string(*p.fold) : "", csv_field(p.split));
  return text;
}

}  // namespace ermoe
