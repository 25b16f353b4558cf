#include "tools/study_schedule.h"

#include "core/error.h"
#include "core/file_io.h"
#include "tools/child_process.h"
#include "tools/config_table.h"
#include "tools/progress.h"
#include "tools/signals.h"
#include "tools/study_figures.h"
#include "tools/study_progress.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <list>
#include <memory>
#include <optional>
#include <thread>

namespace ermoe {
namespace {

namespace fs = std::filesystem;

constexpr auto look_every = std::chrono::milliseconds(30);
constexpr size_t largest_log = size_t{64} << 20, told_lines = 5;

double now_in_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string last_lines(const std::string& path) {
  std::string text;
  try {
    text = read_file(path, largest_log);
  } catch (const std::exception& fault) {
    return fmt::format("    ({})", fault.what());  // there is another fault to be told
  }
  while (text.ends_with('\n')) text.pop_back();
  size_t at = text.size();
  for (size_t lines = 0; lines < told_lines && at != std::string::npos && at > 0; ++lines) at = text.rfind('\n', at - 1);
  text = at == std::string::npos || at == 0 ? text : text.substr(at + 1);
  for (size_t i = text.find('\n'); i != std::string::npos; i = text.find('\n', i + 1)) text.replace(i, 1, "\n    ");
  return "    " + text;
}

/// What the evaluation prints while it is at it.
constexpr std::string_view unfinished_file = "evaluation.json.partial";

/// One run on its way: a child that trains, where anything is left to train, then one that evaluates.
class Job {
 public:
  enum class Now { busy, done, failed, stopped };

  Job(const StudyRun& run, const ScheduleOptions& options)
      : run_(run), options_(options), state_(state_of(run)), start_(now_in_seconds()), record_(record_of(run)) {
    if (state_ == RunState::absent) {
      prepare(run);
      record_ = {};
    }
    before_ = progress_of(run);
    record_.at_once = std::max(record_.at_once, options.jobs);
    write_record(run, record_);
    start_child();
  }

  const StudyRun& run() const { return run_; }
  double seconds() const { return now_in_seconds() - start_; }
  /// Share of its steps that were there when this began.
  double before() const { return before_; }
  /// Why it failed, with the last lines of its log.
  const std::string& fault() const { return fault_; }

  void stop(int signal) {
    stopped_by_ = signal;
    child_->signal(signal);
  }

  /// What goes wrong with this run is its own failure: the others go on.
  Now look() {
    try {
      return look_at_child();
    } catch (const std::exception& fault) {
      return fail(fault.what());
    }
  }

  const RunFigures& figures() const { return figures_; }

 private:
  Now look_at_child() {
    const std::optional<int> code = child_->ended();
    if (!code) return Now::busy;
    const bool evaluated = state_ == RunState::trained && *code == 0;
    if (evaluated) return finish();
    // An evaluation has nothing to save: it may end by the signal itself.
    const bool ended_in_order = *code == 0 || (state_ == RunState::trained && *code == 128 + stopped_by_);
    if (stopped_by_ != 0 && ended_in_order) return Now::stopped;
    if (*code != 0) return fail(fmt::format("its {} ended with code {}", state_ == RunState::trained ? "evaluation" : "training", *code));
    state_ = state_of(run_);
    if (state_ != RunState::trained) return fail("its training ended before the last step");
    start_child();
    return Now::busy;
  }

  void start_child() {
    const std::string log = run_.file(log_file);
    const std::string device = to_text(find_setting("train.device")->get(run_.asked));
    const bool evaluates = state_ == RunState::trained;
    std::vector<std::string> command;
    if (evaluates)
      command = {options_.evaluate, "--checkpoint",  run_.file("checkpoints/latest"),
                 "--json",          "--predictions", run_.file(predictions_file)};
    else if (state_ == RunState::begun)
      command = {options_.train, "--resume", run_.folder};
    else
      command = {options_.train, "--config", run_.file(asked_file)};
    command.insert(command.end(), {"--device", device});
    if (options_.threads > 0) command.insert(command.end(), {"--threads", std::to_string(options_.threads)});
    child_ = std::make_unique<ChildProcess>(command, evaluates ? run_.file(unfinished_file) : log, log);
  }

  Now finish() {
    figures_ = figures_of(run_, unfinished_file);  // it is whole, and what the table wants
    record_.seconds += seconds();
    write_record(run_, record_);
    fs::rename(run_.file(unfinished_file), run_.file(evaluation_file));
    return Now::done;
  }

  Now fail(const std::string& what) {
    fault_ = fmt::format("FAILED, {}; the last lines of {}:\n{}", what, run_.file(log_file), last_lines(run_.file(log_file)));
    return Now::failed;
  }

  const StudyRun& run_;
  const ScheduleOptions& options_;
  RunState state_;
  double start_, before_ = 0;
  RunRecord record_;
  int stopped_by_ = 0;
  RunFigures figures_;
  std::unique_ptr<ChildProcess> child_;
  std::string fault_;
};

class Runner {
 public:
  Runner(const std::vector<StudyRun>& runs, const ScheduleOptions& options) : options_(options) {
    double work = 0;
    for (const StudyRun& run : runs) {
      if (state_of(run) == RunState::done) continue;
      waiting_.push_back(&run);
      work += 1 - progress_of(run);
    }
    progress_.emplace(stdout, static_cast<int64_t>(runs.size()), static_cast<int64_t>(runs.size() - waiting_.size()), work, now_in_seconds);
  }

  ScheduleResult run() {
    const StopSignals signals;
    while (!jobs_.empty() || (!waiting_.empty() && !signals.requested())) {
      if (!signals.requested())
        begin_some();
      else if (result_.signal == 0)
        pass_on(signals.received());
      std::this_thread::sleep_for(look_every);
      look();
      progress_->show([this] { return running(); });
    }
    progress_->end();
    if (!waiting_.empty()) result_.signal = signals.received();
    return result_;
  }

 private:
  void begin_some() {
    while (!waiting_.empty() && static_cast<int64_t>(jobs_.size()) < options_.jobs) {
      const StudyRun& run = *waiting_.front();
      waiting_.pop_front();
      try {
        begin(run);
      } catch (const std::exception& fault) {
        ++result_.failed;
        progress_->say(fmt::format("{}: FAILED, it could not begin: {}", run.name, fault.what()));
      }
    }
  }

  void begin(const StudyRun& run) {
    const RunState state = state_of(run);
    jobs_.emplace_back(run, options_);
    const char* what = state == RunState::begun ? "goes on" : state == RunState::trained ? "is evaluated" : "begins";
    progress_->say(fmt::format("{}: {}", run.name, what));
  }

  void look() {
    for (auto job = jobs_.begin(); job != jobs_.end();) {
      const Job::Now now = job->look();
      if (now == Job::Now::busy) {
        ++job;
        continue;
      }
      if (now == Job::Now::done) {
        ++result_.done;
        progress_->finished(1 - job->before());
        progress_->say(fmt::format("{}: {}, after {}", job->run().name, figure_text(job->figures()), duration_text(job->seconds())));
      } else if (now == Job::Now::failed) {
        ++result_.failed;
        progress_->say(fmt::format("{}: {}", job->run().name, job->fault()));
      }
      job = jobs_.erase(job);
    }
  }

  void pass_on(int signal) {
    result_.signal = signal;
    for (Job& job : jobs_) job.stop(signal);
  }

  std::vector<RunningShare> running() const {
    std::vector<RunningShare> all;
    for (const Job& job : jobs_) all.push_back({.name = job.run().name, .share = progress_of(job.run()), .before = job.before()});
    return all;
  }

  const ScheduleOptions& options_;
  std::optional<StudyProgress> progress_;
  std::list<const StudyRun*> waiting_;
  std::list<Job> jobs_;
  ScheduleResult result_;
};

}  // namespace

ScheduleResult run_missing(const std::vector<StudyRun>& runs, const ScheduleOptions& options) { return Runner(runs, options).run(); }

}  // namespace ermoe
