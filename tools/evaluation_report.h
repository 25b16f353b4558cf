// An evaluation in words and as JSON: what ermoe-eval prints.
#pragma once

#include "tools/evaluation.h"
#include "tools/regression_report.h"

#include <optional>
#include <string>
#include <vector>

namespace ermoe {

/// An evaluation and what it was made of.
struct EvaluationReport {
  std::string checkpoint;  // folder
  int64_t step = 0;
  bool averaged = false;  // averaged weights
  std::string data;
  std::vector<std::string> class_names;  // one a model output
  Evaluation result;
  std::optional<double> shuffled_accuracy;
  std::optional<RegressionReport> regression = {};  // of a model that predicts a number: then nothing is said of classes
  // Of images and captions, for which `result.retrieval` stands in the place of classes
  std::optional<double> shuffled_rsum = {};
  std::string part = {};     // of the data set: "val", "test", "train", "held out"
  int64_t image_blocks = 0;  // those behind are the text tower's
};

/// Lines for people: accuracy (or the errors of a regression), loss, a table of the routing of each layer, accuracy by class (the worst,
/// where there are many).
std::string evaluation_text(const EvaluationReport& report);

/// Everything, the confusion matrix and each expert's load included, as one JSON object.
std::string evaluation_json(const EvaluationReport& report);

}  // namespace ermoe
