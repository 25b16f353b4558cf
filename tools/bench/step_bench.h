// Whole training steps on random images: forward, backward, AdamW, orthogonal step, refreshed weights. The workloads are
// those of the performance table. Read next: tools/bench/step_bench.cpp.
#pragma once

#include "models/recorded_step.h"
#include "models/vit.h"
#include "tools/bench/families.h"
#include "tools/bench/measure.h"
#include "tools/engine.h"

#include <optional>
#include <string>
#include <vector>

namespace ermoe {

/// c10: D 384, 32 px in patches of 4, 10 classes. s16, b16: D 384 and 768, 224 px in patches of 16, 1000 classes. ba: D 768,
/// volumes of 128³ voxels with one channel in patches of 16³, one number to come close to in L1. All: 12 blocks, heads of
/// 64, a class token, 8 experts of which 2 a token in every second block.
enum class Workload { c10, s16, b16, ba };
/// What stands in every second block: a dense network as in the others, or experts behind one of the routers. Experts are
/// factored for `ermoe` and plain for the others.
#define ERMOE_BENCH_LAYER(name) name,
enum class BenchLayer { dense, ERMOE_ROUTERS(ERMOE_BENCH_LAYER) };
#undef ERMOE_BENCH_LAYER

/// Whether a GPU's step is also broken down by families of kernels, in steps of their own behind the timed ones.
enum class Breaking { none, families };
/// Whether a GPU replays steps as one CUDA graph, as training does, or gets them op by op.
enum class Running { recorded, op_by_op };

struct StepBenchOptions {
  Workload workload = Workload::c10;
  BenchLayer layer = BenchLayer::ermoe;
  Orthogonality orthogonality = Orthogonality::newton_schulz;
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
  StepBenchResult run() { return run(options_.orthogonality); }
  StepBenchResult run(Orthogonality method);

 private:
  StepReport step(RecordedStep& steps);
  std::vector<GpuActivity> watch_step(RecordedStep& steps, GpuProfiler& profiler);
  void watch_steps(RecordedStep& steps, TrainStep& train, const TargetLoss& loss, StepBenchResult& result);
  Breakdown break_down_steps(TrainStep& train, const TargetLoss& loss, GpuProfiler& profiler, double seconds);

  Engine& engine_;
  ExecContext ctx_;  // of training steps
  StepBenchOptions options_;
  Vit model_;
  LossConfig loss_;
  Tensor images_;   // (B, 3, S, S), or (B, 1, S, S, S)
  Tensor targets_;  // (B, Y), one-hot; (B, 1) random numbers for ba
};

/// Images of a step: as asked or, for 0, 32 for ba and 16 for the others.
int64_t batch_of(const StepBenchOptions& options);

/// The model of a workload.
VitConfig workload_model(const StepBenchOptions& options);

}  // namespace ermoe
