// Cross-validation of a regression on volumes: a model for each fold, trained on the others, and everyone's age as the model says it that
// never saw them. Read first: tools/trainer.h, data/folds.h.
#pragma once

#include "core/ranks.h"
#include "tools/regression_report.h"
#include "tools/run_config.h"

#include <string>
#include <vector>

namespace ermoe {

/// Whether the settings ask for it: data.folds without data.fold.
bool wants_cross_validation(const RunConfig& config);

/// Trains into train.out/fold-N, one after another; a fold that is done is left alone and one that was begun goes on, so the same command
/// again continues what was stopped. At the end writes predictions.csv, report.json and scatter.png beside them and prints the report.
/// What corrects the bias of a fold is fitted through the predictions of the others, its training subjects. Returns the exit code.
int cross_validate(const RunConfig& config, Ranks* ranks);

/// Everyone's held-out prediction in the folder of a cross-validation, corrected where a line can be fitted. Throws `InputError` for folds
/// that are missing or not done.
std::vector<AgePrediction> held_out_predictions(const std::string& folder);

/// The same subjects' in two such folders: text about who errs less. Throws `InputError` where they are not of the same subjects.
std::string compare_text(const std::string& folder, const std::string& other);

}  // namespace ermoe
