// One op at a time, at the shapes of a workload's training step: time and rate, forward and backward.
// Read next: tools/bench/op_cases.cpp, the table of ops.
#pragma once

#include "autograd/tape.h"
#include "tools/bench/measure.h"
#include "tools/bench/step_bench.h"

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

enum class Bound { compute, memory };

/// How an op is run, and its work: FLOPs where arithmetic bounds it, else bytes, every operand counted once.
struct OpCase {
  std::string name;
  std::string shapes;
  Bound bound = Bound::compute;
  double work = 0;           // of the forward pass
  double backward_work = 0;  // of the backward pass; 0: there is none
  std::vector<Tensor> inputs;
  std::function<Variable(const ExecContext&, std::span<const Variable>)> run;
};

/// Each pass: at least 5 runs behind 2 on a CPU, 20 behind 5 on a GPU.
struct OpResult {
  Timing forward, backward;  // backward stays 0 where there is none
};

/// Whose shapes ops have, and what they compute in.
struct OpOptions {
  Workload workload = Workload::c10;
  int64_t batch = 16;
  DType dtype = DType::f32;
  std::string only;      // one op's name; empty: all
  double seconds = 0.2;  // how long each pass is repeated at least
};

/// Images a step of a workload in the performance table.
int64_t table_batch(Workload workload);

/// Calls `visit` with each case in turn: its tensors live for the call alone.
void for_each_op(const Engine& engine, const OpOptions& options, const std::function<void(const OpCase&)>& visit);

class OpBench {
 public:
  /// `engine` must outlive this.
  OpBench(const Engine& engine, double seconds);
  OpResult run(const OpCase& op);

 private:
  ExecContext ctx_;
  WorkClock clock_;
  Sweep sweep_;
  Rounds rounds_;
};

}  // namespace ermoe
