// Runs what is missing of a study: some runs at a time, each a child that trains and then one that evaluates, and says how far all is.
// Read first: tools/study_runs.h, tools/child_process.h.
#pragma once

#include "tools/study_runs.h"

#include <cstdint>
#include <string>
#include <vector>

namespace ermoe {

struct ScheduleOptions {
  int64_t jobs = 1;             // runs at once
  int64_t threads = 0;          // of each run; 0: as its settings say
  std::string train, evaluate;  // the programs' paths
};

struct ScheduleResult {
  int64_t done = 0, failed = 0;
  int signal = 0;  // that ended it early; 0: none
};

/// Runs those that are not done, in order. SIGINT, SIGTERM and SIGUSR1 go on to the children, and nothing new is begun. Tells on standard
/// output; failures with the last lines of their log.
ScheduleResult run_missing(const std::vector<StudyRun>& runs, const ScheduleOptions& options);

}  // namespace ermoe
