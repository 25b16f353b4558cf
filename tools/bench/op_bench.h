// One op at a time, at the shapes of the c10 workload with 16 images: time and rate, forward and backward.
// Read next: tools/bench/op_cases.cpp, the table of ops.
#pragma once

#include "autograd/tape.h"
#include "tools/bench/measure.h"

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

struct OpResult {
  Timing forward, backward;  // backward stays 0 where there is none
};

/// Calls `visit` with each case in turn: its tensors live for the call alone.
void for_each_op(const ExecContext& ctx, const std::function<void(const OpCase&)>& visit);

/// Each pass is repeated for `seconds`.
OpResult bench_op(const ExecContext& ctx, const OpCase& op, double seconds);

}  // namespace ermoe
