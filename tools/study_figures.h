// The figures of one run, all read from its folder: evaluation.json, metrics.jsonl, config.json, test_predictions.csv.
// Read first: tools/study_runs.h; next: tools/study_table.h.
#pragma once

#include "tools/study_runs.h"

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

/// One of the figures that a study's table has.
struct FigureKind {
  const char* key;    // in CSV and JSON
  const char* title;  // in the table
  double scale;       // of the table's number
  int digits;         // behind the point there
};

/// Those that every run has, or may have, in the table's order; the first three are what rows are judged by.
std::span<const FigureKind> figure_kinds();
/// By its key. Throws `Error` where there is none.
const FigureKind& figure_kind(const std::string& key);

/// By name; what does not apply, or was not logged, is not there.
using Figures = std::map<std::string, double>;

struct LayerFigures {
  int64_t block = 0;
  Figures values;  // "gini", "max_over_mean", … as ermoe-eval names them
};

/// One measurement on the way: mean over layers or loss terms.
struct CoursePoint {
  int64_t step = 0;
  double value = 0;
};

/// "churn", "purity_router", "purity_experts", in the order of steps.
using Courses = std::map<std::string, std::vector<CoursePoint>>;

struct RunFigures {
  uint64_t seed = 0;
  std::string folder;
  Figures values;  // by figure_kinds
  std::vector<LayerFigures> layers;
  Courses courses;
  int64_t at_once = 1;                      // runs beside each other while it was timed
  std::map<std::string, double> by_sample;  // by image or subject: 1 where it was right, else 0; or the absolute error; of captions none
};

/// Of a run that is done, or whose evaluation still has another name. Throws InputError where a file is not as ermoe-train and ermoe-eval
/// leave it.
RunFigures figures_of(const StudyRun& run, std::string_view evaluation = evaluation_file);

/// "accuracy 91.32 %", "MAE 6.51", "rsum 212.4".
std::string figure_text(const RunFigures& figures);

}  // namespace ermoe
