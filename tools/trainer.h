// The training loop: steps, progress, metrics, evaluation, checkpoints, signals. What is trained lives in tools/session.h.
#pragma once

#include "core/ranks.h"
#include "tools/metrics_log.h"
#include "tools/progress.h"
#include "tools/run_folder.h"
#include "tools/session.h"
#include "tools/signals.h"
#include "tools/standouts.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace ermoe {

class Trainer {
 public:
  /// Opens data and model, and the run folder; with train.resume continues from its newest whole checkpoint. Prints what it found.
  /// With `ranks` of several processes each makes one; rank 0 alone prints and writes.
  explicit Trainer(RunConfig config, Ranks* ranks = nullptr);

  /// Trains to the end or until a signal. Returns the exit code: 0 in both cases.
  int run();

  /// Whether all steps are done; a signal ends `run` before.
  bool finished() const { return session_->finished(); }

  /// `fn` is told with a literal what this rank does from now on: "the backward pass" of step `step`.
  void on_phase(std::function<void(int64_t step, const char* phase)> fn) { on_phase_ = std::move(fn); }

 private:
  void print_start();
  void print_model();
  void print_experts(const Tower& tower);
  void print_parallel();
  void one_step();
  void refuse_bad_step(const SessionStep& step);
  void log_step(const SessionStep& step);
  void show(const SessionStep& step, double loss, const StepLoad& load);
  void write_row(const SessionStep& step, double loss, double extra_loss, const StepLoad& load);
  double seconds_in_collectives() const;
  std::optional<SlowestRank> find_slowest() const;
  void start_row();
  void log_purity(const std::vector<TermPurity>& terms);
  void evaluate();
  void save(Standing standing);
  bool evaluation_due() const;
  bool checkpoint_due() const;
  bool stop_requested();
  void enter(int64_t step, const char* phase, Patience patience = Patience::ordinary);
  void enter(const char* phase);
  void say(const std::string& line);
  void note(const std::string& text);
  std::string path() const;  // of the run's folder; empty on other ranks
  void finish();

  RunConfig config_;
  Ranks* ranks_;
  bool first_;  // rank 0
  Progress progress_;
  std::unique_ptr<Session> session_;
  std::optional<RunFolder> folder_;
  StopSignals signals_;
  int stop_signal_ = 0;  // that any rank got
  size_t planned_memory_ = 0;
  std::optional<Evaluation> last_evaluation_;
  int64_t last_saved_ = -1;

  // What this rank does.
  int64_t step_ = 0;
  Patience patience_ = Patience::endless;
  std::function<void(int64_t, const char*)> on_phase_ = [](int64_t, const char*) {};

  // Since the last logged row.
  double seconds_ = 0, wait_seconds_ = 0, loss_ = 0;
  double own_seconds_ = 0;  // of `seconds_`, without those in collectives
  int64_t steps_ = 0;
  std::optional<SlowestRank> slowest_;  // of the last row
  // Of all steps since the start of the program.
  double all_seconds_ = 0, all_wait_seconds_ = 0;
};

}  // namespace ermoe
