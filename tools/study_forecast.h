// What a study would run: for --dry-run.
#pragma once

#include "tools/study_runs.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ermoe {

/// Steps of a run on so many training samples, as Session counts them.
int64_t steps_of(const RunConfig& config, int64_t training_samples);

/// Training images that a run has; nothing for volumes, which are not read for this. Throws InputError where the data set is not there.
std::optional<int64_t> training_images(const RunConfig& config);

/// Throws InputError, which names the row, where the data of a run that is missing are not there.
void require_data_sets(const Study& study, const std::vector<StudyRun>& runs);

/// A line for each run, then all steps that are missing, and how long they take by the runs that are done. Opens each data set once.
std::string forecast(const std::vector<StudyRun>& runs, int64_t jobs);

}  // namespace ermoe
