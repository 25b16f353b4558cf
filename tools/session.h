// Everything that training holds, made from a RunConfig: data, model, optimizer, averages, progress. Knows how to restore
// and save itself. What depends on the task is tools/objective.h; the loop around it is tools/trainer.h.
#pragma once

#include "models/average.h"
#include "models/checkpoint.h"
#include "models/checkpoint_store.h"
#include "models/purity.h"
#include "models/recorded_step.h"
#include "tools/engine.h"
#include "tools/objective.h"
#include "tools/pipeline.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace ermoe {

/// What one step cost beside its report.
struct SessionStep {
  StepReport report;
  double lr = 0;
  double seconds = 0;
  double wait_seconds = 0;                             // of it, for data
  std::optional<std::vector<TermPurity>> purity = {};  // measured before the step, where it was due; its time counts nowhere
};

class Session {
 public:
  /// Opens the data, completes `config` from it, builds the model and gives it its first values (or those of train.init).
  /// `warn` takes sentences for the user. `tokenizer`: of a checkpoint that `restore` will be called with, where there is one.
  /// Of several ranks each makes one, at the same time, and calls the same functions in the same order; `ranks` must outlive it.
  Session(RunConfig& config, WarnFn warn, Ranks* ranks = nullptr, std::shared_ptr<const Tokenizer> tokenizer = nullptr);

  /// Continues from a checkpoint folder that was verified.
  void restore(const std::string& folder);
  /// Throws InputError where ranks stand at different places; all call it.
  void require_same_start();
  /// Writes and commits a checkpoint: all ranks together, into rank 0's `run_folder`; others need not know it. Where one fails, all throw
  /// the same sentence, and earlier checkpoints are as they were.
  void save(const std::string& run_folder, Standing standing, const std::string& config_json);

  /// `fn` is told with a literal what happens from now on in steps and saving: "loading images", TrainStep's phases, "committing a
  /// checkpoint".
  void on_phase(std::function<void(const char* phase)> fn);

  /// One optimizer step.
  SessionStep step();
  /// The evaluation split, with the averaged weights where they are kept.
  Evaluation evaluate(const EvaluationProgress& progress);

  bool finished() const { return progress_.step >= total_steps_; }
  int64_t total_steps() const { return total_steps_; }
  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  double epoch() const { return static_cast<double>(progress_.step) / static_cast<double>(steps_per_epoch_); }
  TrainingProgress& progress() { return progress_; }
  Model& model() { return *model_; }
  const Objective& objective() const { return *objective_; }
  Pipeline& pipeline() { return *pipeline_; }
  Engine& engine() { return engine_; }
  int threads() const { return threads_; }

  /// What parallel.autotune tried and took, as lines for the user; empty where it was not asked for.
  const std::string& tuning() const { return tuning_; }

  /// Predicted peak of the engine's memory in bytes, from a dry run of one micro-batch and one of an evaluation, whose
  /// memory is thereby taken before the first step. Leaves the training state alone. Like `step` and `evaluate` it throws
  /// OutOfMemory with a batch that would fit.
  size_t plan_memory();

 private:
  void build(RunConfig& config, const WarnFn& warn);
  void give_first_values(const RunConfig& config, const WarnFn& warn);
  void choose_expert_ranks(RunConfig& config);
  double time_steps();
  void drop_model();
  size_t probe_activations(int64_t images);
  std::string advice();
  size_t probe_evaluation();
  BatchPart part() const;
  MicroBatch make_batch(int64_t step, int64_t micro);
  MicroBatch next_batch(int64_t micro);
  void make_ahead();
  bool purity_due() const;
  std::vector<TermPurity> measure_purity();
  RngKey step_key() const { return RngKey{config_.train.seed}.fold(3); }
  std::unique_ptr<AveragedWeights> use_average();

  RunConfig& config_;
  int threads_;
  Engine engine_;
  std::unique_ptr<Pipeline> pipeline_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<MovingAverage> average_;
  std::unique_ptr<Objective> objective_;
  std::unique_ptr<TrainStep> train_step_;
  std::unique_ptr<RecordedStep> recorded_step_;
  std::optional<MicroBatch> ahead_;  // the first micro-batch of the next step, where it is made already
  Cursor cursor_;                    // of that micro-batch
  TrainingProgress progress_;
  std::string tuning_;
  bool has_no_terms_ = false;  // whose gradients could be measured
  int64_t steps_per_epoch_ = 1;
  int64_t total_steps_ = 1;
  std::function<void(const char*)> phase_ = [](const char*) {};
};

}  // namespace ermoe
