#include "tools/bench/op_bench.h"

namespace ermoe {

OpBench::OpBench(const Engine& engine, double seconds) : ctx_(engine.ctx), clock_(engine), sweep_(engine) {
  ctx_.mode = Mode::train;
  rounds_ = engine.gpu ? Rounds{.warmup = 5, .runs = 20, .seconds = seconds} : Rounds{.warmup = 2, .runs = 5, .seconds = seconds};
}

OpResult OpBench::run(const OpCase& op) {
  const std::vector<Variable> constants(op.inputs.begin(), op.inputs.end());
  OpResult result;
  result.forward = time_runs(
      clock_, rounds_, [&] { sweep_(); }, [&] { op.run(ctx_, constants); });
  if (op.backward_work == 0) return result;

  Tape tape;
  Variable y;
  const ExecContext taped = ctx_.with_tape(&tape);
  const auto record_again = [&] {
    y = {};
    tape.clear();
    std::vector<Variable> leaves;
    for (const Tensor& input : op.inputs) leaves.push_back(tape.leaf(input));
    y = op.run(taped, leaves);
  };
  record_again();
  const Tensor dy = ctx_.empty(y.shape(), y.dtype(), "gradient");
  fill_uniform(dy, RngKey{9});
  const auto prepare = [&] {
    record_again();
    sweep_();
  };
  result.backward = time_runs(clock_, rounds_, prepare, [&] { tape.backward(taped, y, dy); });
  return result;
}

}  // namespace ermoe
