// Predicted ages, subject by subject, and what is said of them: in words, as JSON, as a table. The figures themselves are
// models/regression_metrics.h, the picture tools/age_scatter.h.
#pragma once

#include "models/regression_metrics.h"

#include <nlohmann/json_fwd.hpp>

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace ermoe {

/// Of one volume; in years.
struct AgePrediction {
  std::string subject;
  double age = 0, predicted = 0;
  std::optional<double> corrected = {};      // of bias; nothing where there is no usable correction
  std::optional<double> training_mean = {};  // mean age of those that the predicting model was trained on
  std::optional<int> fold = {};              // that it was held out in
  std::string split = {};                    // "train", "val", "test", or empty
};

/// Fills in `corrected` of all, or empties it where the correction is not usable.
void apply_correction(const BiasCorrection& correction, std::span<AgePrediction> predictions);

/// The report of all of them. Corrected figures, and the mean predictor's, are there only where every prediction has what they want.
/// Throws `Error` for no predictions and for values that are not finite.
RegressionReport regression_report(std::span<const AgePrediction> predictions, const BootstrapOptions& bootstrap = {});

/// Lines for people: as predicted and corrected side by side, then both by decade of age. What is undefined is called so.
std::string regression_text(const RegressionReport& report);

/// Two predictors of the same subjects in one line: "a - b: MAE -0.41 +- 0.15 years (95 % interval -0.70 to -0.12), better for 61.0 % of
/// 151".
std::string paired_text(const std::string& a, const std::string& b, const PairedDifference& difference);

/// The same figures; null for what is undefined or not there.
nlohmann::ordered_json regression_json(const RegressionReport& report);

/// A CSV: participant_id,age,predicted,corrected,training_mean,fold,split; fields without a value are empty.
std::string predictions_csv(std::span<const AgePrediction> predictions);

}  // namespace ermoe
