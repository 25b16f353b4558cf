// Whole training steps on random images: forward, backward, AdamW, orthogonal step, refreshed weights. The workloads are
// those of the performance table (tools/bench/workload.h). Read next: tools/bench/step_bench.cpp.
#pragma once

#include "models/recorded_step.h"
#include "tools/bench/families.h"
#include "tools/bench/measure.h"
#include "tools/bench/workload.h"
#include "tools/engine.h"

#include <optional>
#include <string>
#include <vector>

namespace ermoe {

/// Whether a GPU's step is also broken down by families of kernels, in steps of their own behind the timed ones.
enum class Breaking { none, families };
/// Whether a GPU replays steps as one CUDA graph, as training does, or gets them op by op.
enum class Running { recorded, op_by_op };

struct StepBenchOptions {
  WorkloadOptions what;
  Precision precision = Precision::auto_;
  int64_t batch = 0;  // 0: see batch_of
  int64_t steps = 20;
  int64_t warmup = 5;
  int64_t expert = 1;  // ranks that hold the experts together
  int64_t chunks = 0;  // in which rows travel to them; 0: as hosts are
  Breaking breaking = Breaking::families;
  Running running = Running::recorded;
};

struct StepBenchResult {
  Timing step;
  std::optional<StepTimes> phases;          // on a CPU, of the step with the median time; a GPU's would be its host's
  Breakdown breakdown;                      // on a GPU
  std::vector<CollectiveTime> collectives;  // on a GPU of several ranks, in a step that runs as the timed ones did
  double images_per_second = 0;             // by the median, of all ranks together
  int ranks = 1;
  double useful_flops = 0;     // of a step: the K chosen experts once, forward and backward, without scoring
  double all_flops = 0;        // with scoring, matrices from factors, their gradients and the orthogonal step
  size_t peak_bytes = 0;       // of the engine's memory, weights included
  size_t optimizer_bytes = 0;  // of this rank
  size_t reserved_bytes = 0;   // what the engine holds in the end, cached blocks included
  int64_t parameters = 0;
  double loss = 0;        // of the last step
  bool recorded = false;  // as one CUDA graph
};

class StepBench {
 public:
  /// `engine` must outlive this. Of several ranks all make one, and run it, at the same time; each has a batch of its own, and a step is as
  /// long as the slowest rank's.
  StepBench(Engine& engine, const StepBenchOptions& options);

  /// Steps with the method of the options, or another that keeps factors orthonormal.
  StepBenchResult run() { return run(options_.what.orthogonality); }
  StepBenchResult run(Orthogonality method);

 private:
  StepReport step(RecordedStep& steps);
  std::vector<GpuActivity> watch_step(RecordedStep& steps, GpuProfiler& profiler);
  void watch_steps(RecordedStep& steps, TrainStep& train, StepBenchResult& result);
  Breakdown break_down_steps(TrainStep& train, GpuProfiler& profiler, double seconds);

  Engine& engine_;
  ExecContext ctx_;  // of training steps
  StepBenchOptions options_;
  BenchTask task_;
};

}  // namespace ermoe
