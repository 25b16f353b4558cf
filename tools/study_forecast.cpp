#include "tools/study_forecast.h"

#include "core/error.h"
#include "data/captions.h"
#include "data/dataset.h"
#include "tools/config_check.h"
#include "tools/model_choice.h"
#include "tools/progress.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

namespace ermoe {
namespace {

/// Of a run that was not counted yet.
struct Expected {
  const StudyRun* run;
  RunState state;
  std::optional<int64_t> steps;
};

const char* name_of(RunState state) {
  switch (state) {
    case RunState::absent: return "to run";
    case RunState::begun: return "to go on";
    case RunState::trained: return "to evaluate";
    case RunState::done: return "done";
  }
  return "";
}

std::vector<Expected> expected(const std::vector<StudyRun>& runs) {
  using Key = std::tuple<std::string, double, int64_t, int64_t>;  // the seed draws who is held out, not how many
  std::map<Key, std::optional<int64_t>> known;
  std::vector<Expected> all;
  for (const StudyRun& run : runs) {
    const DataConfig& data = run.asked.data;
    const Key key{data.path, data.val_share, data.limit, data.overfit};
    if (run.asked.train.steps == 0 && !known.contains(key)) known[key] = training_images(run.asked);
    const std::optional<int64_t> samples = run.asked.train.steps > 0 ? std::optional<int64_t>(0) : known.at(key);
    all.push_back({&run, state_of(run), samples ? std::optional(steps_of(run.asked, *samples)) : std::nullopt});
  }
  return all;
}

/// Seconds a step of the runs that are done; nothing where none is.
std::optional<double> seconds_a_step(const std::vector<Expected>& runs) {
  double seconds = 0, steps = 0;
  for (const Expected& e : runs) {
    if (e.state != RunState::done || !e.steps) continue;
    const RunRecord record = record_of(*e.run);
    seconds += record.seconds / static_cast<double>(record.at_once);
    steps += static_cast<double>(*e.steps);
  }
  return steps > 0 && seconds > 0 ? std::optional(seconds / steps) : std::nullopt;
}

}  // namespace

int64_t steps_of(const RunConfig& config, int64_t training_samples) {
  const TrainConfig& train = config.train;
  if (train.steps > 0) return train.steps;
  const int64_t micro = std::max<int64_t>(1, train.batch / train.accumulate);
  return train.epochs * std::max<int64_t>(1, training_samples / micro / train.accumulate);
}

std::optional<int64_t> training_images(const RunConfig& config) {
  if (config.model.dimensions == 3) return std::nullopt;
  const DataConfig& data = config.data;
  int64_t count = 0;
  if (task_of(config) == Task::pairs) {
    const CaptionOptions options{.part = data.part,
                                 .training = TrainingPart::optional,
                                 .holdout = data.val_share,
                                 .seed = config.train.seed,
                                 .max_bad = data.max_bad};
    const CaptionSplits splits = open_captions(data.path, options);
    count = splits.train ? splits.train->size() : 0;
  } else {
    const DatasetSplits splits = open_dataset(data.path, {.holdout = data.val_share, .seed = config.train.seed, .warn = {}});
    count = splits.train ? splits.train->size() : 0;
  }
  for (const int64_t most : {data.limit, data.overfit})
    if (most > 0) count = std::min(count, most);
  return count;
}

void require_data_sets(const Study& study, const std::vector<StudyRun>& runs) {
  std::set<std::string> sound;
  for (const StudyRun& run : runs) {
    if (state_of(run) == RunState::done || sound.contains(run.asked.data.path)) continue;
    try {
      require_data(run.asked);
      training_images(run.asked);
    } catch (const InputError& fault) {
      fail_input("row {}: {}", study.rows[run.row].name, fault.what());
    }
    sound.insert(run.asked.data.path);
  }
}

std::string forecast(const std::vector<StudyRun>& runs, int64_t jobs) {
  const std::vector<Expected> all = expected(runs);
  std::string text;
  int64_t missing = 0, unknown = 0;
  double steps = 0;
  for (const Expected& e : all) {
    text += fmt::format("{:<12} {:<40} {}\n", name_of(e.state), e.run->name,
                        e.steps ? fmt::format("{} steps", *e.steps) : fmt::format("{} epochs", e.run->asked.train.epochs));
    if (e.state == RunState::done) continue;
    ++missing;
    if (e.steps)
      steps += static_cast<double>(*e.steps) * (1 - progress_of(*e.run));
    else
      ++unknown;
  }
  text += fmt::format("\n{} of {} runs are missing: {:.0f} steps{}, {} at once\n", missing, all.size(), std::ceil(steps),
                      unknown > 0 ? fmt::format(", and {} runs of epochs that are not counted", unknown) : "", jobs);
  const std::optional<double> each = seconds_a_step(all);
  if (missing == 0) return text;
  return text + (each ? fmt::format("about {}, at the mean step of those that are done\n", duration_text(steps * *each))
                      : std::string("how long that takes is known once a run is done\n"));
}

}  // namespace ermoe
