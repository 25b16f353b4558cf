// The runs of a study on disk: which folder each has, how far it is, and whether what lies there is what the study asks for.
// Read first: tools/study_plan.h; next: tools/study_schedule.h.
#pragma once

#include "tools/study_plan.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

/// `begun`: a checkpoint is there to go on from. `trained`: all steps are, and saved. `done`: evaluated as well.
enum class RunState { absent, begun, trained, done };

struct StudyRun {
  size_t row = 0;  // of the study
  uint64_t seed = 0;
  std::string name;    // "vmoe, seed 1"
  std::string folder;  // OUT/ROW/seed-N
  RunConfig asked;

  std::string file(std::string_view file_name) const;
};

/// Names of files in a run's folder beside those of every run.
inline constexpr std::string_view asked_file = "asked.json";                  // the settings asked for
inline constexpr std::string_view record_file = "study.json";                 // RunRecord
inline constexpr std::string_view log_file = "train.log";                     // what its programs printed
inline constexpr std::string_view evaluation_file = "evaluation.json";        // of the last weights
inline constexpr std::string_view predictions_file = "test_predictions.csv";  // by image or subject, likewise

/// Of these rows, seed by seed: the first seed of each row, then the second, so that an early table has something of each.
std::vector<StudyRun> runs_of(const Study& study, const std::string& out, const std::vector<size_t>& rows);

RunState state_of(const StudyRun& run);

/// What share of its steps are done, 0 to 1, as its metrics say.
double progress_of(const StudyRun& run);

/// Settings that the run's folder was made with and that are others now; "where" and "how fast" left out, as is data.path where the
/// study names none. Empty too where nothing of it is kept. Throws InputError where a run lies there that no study began.
std::vector<std::string> disagreements(const StudyRun& run);

/// Throws InputError, naming row and setting, where one disagrees.
void require_agreement(const std::vector<StudyRun>& runs);

/// Makes an absent run's folder new, with `asked_file` in it. What an earlier try left behind goes.
void prepare(const StudyRun& run);

/// How a run came to be.
struct RunRecord {
  int64_t at_once = 1;  // runs beside each other, itself included, at most
  double seconds = 0;   // of its programs; those that were killed not counted
};
RunRecord record_of(const StudyRun& run);
void write_record(const StudyRun& run, const RunRecord& record);

/// The rows of metrics.jsonl that are whole; none where there is no such file.
std::vector<nlohmann::json> metrics_of(const StudyRun& run);

}  // namespace ermoe
