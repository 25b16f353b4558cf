// What every benchmark measures with: a clock of the device, repeated timings, the device's own matrix rate and copy
// bandwidth, and the name of the host's BLAS kernels.
// Read next: tools/bench/step_bench.h, tools/bench/op_bench.h, tools/bench/orthogonality_bench.h.
#pragma once

#include "models/step_times.h"
#include "tools/engine.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace ermoe {

/// Seconds of one run.
struct Timing {
  double median = 0, min = 0, max = 0;
  double spread = 0;  // the distance of the quartiles, as a share of the median
};

/// Of at least one run. Quartiles lie between two runs where they must, as the median of an even number does.
Timing timing_of(std::vector<double> seconds);

/// Seconds of work as the device that does it sees them: on a GPU between two events, on a CPU of its clock.
class WorkClock {
 public:
  explicit WorkClock(const Engine& engine) : gpu_(engine.gpu ? engine.gpu->timer() : nullptr) {}
  void start() {
    if (gpu_) return gpu_->start();
    watch_.lap();
  }
  /// Waits until the work is done.
  double stop() { return gpu_ ? gpu_->stop() : watch_.lap(); }

 private:
  std::unique_ptr<GpuTimer> gpu_;
  Stopwatch watch_;
};

/// Keeps a GPU busy while the work to be timed is queued behind, so that its time is not that of the launches, and reads more
/// than its cache holds, so that what is timed finds nothing there. Nothing on a CPU.
class Sweep {
 public:
  explicit Sweep(const Engine& engine);
  void operator()() const;

 private:
  ExecContext ctx_;
  Tensor a_, b_;  // (rows, depth) f32 or bf16, undefined on a CPU: a product that reads much and writes little
};

/// How often something is timed: `warmup` untimed rounds, then until `runs` rounds and `seconds` have both passed.
struct Rounds {
  int64_t warmup = 0, runs = 1;
  double seconds = 0;
};

/// `prepare` comes before every round and is not timed; it may be empty.
Timing time_runs(WorkClock& clock, const Rounds& rounds, const std::function<void()>& prepare, const std::function<void()>& timed);

/// FLOP/s of one large product in `dtype`, by the engine's own matmul: what a step could reach if it were nothing else.
double matrix_rate(const Engine& engine, DType dtype);

/// Bytes read and written in a second by one large copy within the device's memory.
double copy_bandwidth(const Engine& engine);

/// The processor for which OpenBLAS chose its kernels ("Zen", "Haswell"); "unknown" with another BLAS.
std::string blas_core();

/// Numbers in (-1/2, 1/2), far cheaper than normal ones. f32 or f64, on a GPU f32 or bf16.
void fill_uniform(const Tensor& t, RngKey key);

}  // namespace ermoe
