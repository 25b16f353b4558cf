// What collectives between ranks cost by their size: over NCCL between GPUs, over MPI between CPUs.
#pragma once

#include "tools/bench/measure.h"
#include "tools/bench/step_bench.h"
#include "tools/engine.h"

#include <functional>
#include <string>

namespace ermoe {

enum class Collective { all_reduce, reduce_scatter, all_gather, broadcast, all_to_all };

struct CommBenchOptions {
  std::string only;                                             // the name of one; empty: all
  int64_t least = int64_t{4} << 10, most = int64_t{256} << 20;  // bytes; sizes are four times as large each
  Running running = Running::recorded;
};

struct CommResult {
  Collective collective = Collective::all_reduce;
  int64_t bytes = 0;          // of the tensor of all ranks' rows, or of the one that is reduced or broadcast
  Timing time;                // of one call, on the rank that took longest
  double algorithm_rate = 0;  // bytes a second
  double bus_rate = 0;        // what each rank sends and receives in a second, of the fewest bytes that do it
};

/// Calls `done` with each result; all ranks call this at the same time. Throws InputError where `only` is no collective.
void bench_collectives(const Engine& engine, const CommBenchOptions& options, const std::function<void(const CommResult&)>& done);

}  // namespace ermoe
