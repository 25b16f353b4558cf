// What every benchmark measures with: repeated timings, the machine's own matrix rate, and the name of its BLAS kernels.
// Read next: tools/bench/step_bench.h, tools/bench/op_bench.h, tools/bench/orthogonality_bench.h.
#pragma once

#include "core/context.h"

#include <functional>
#include <string>
#include <vector>

namespace ermoe {

/// Seconds of one run.
struct Timing {
  double median = 0, min = 0, max = 0;
};

/// Of at least one run.
Timing timing_of(std::vector<double> seconds);

/// Times `timed` after `warmup` untimed rounds until `runs` rounds and `seconds` have both passed. `prepare` comes before
/// every round and is not timed; it may be empty.
Timing time_runs(int64_t warmup, int64_t runs, double seconds, const std::function<void()>& prepare, const std::function<void()>& timed);

/// GFLOP/s of a float product of squares of `size`, on all threads: what a step could reach if it were nothing else.
double matrix_rate(const ExecContext& ctx, int64_t size = 2048);

/// The processor for which OpenBLAS chose its kernels ("Zen", "Haswell"); "unknown" with another BLAS.
std::string blas_core();

/// Numbers in (-1/2, 1/2), far cheaper than normal ones.
void fill_uniform(const Tensor& t, RngKey key);

}  // namespace ermoe
