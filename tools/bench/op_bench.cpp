#include "tools/bench/op_bench.h"

namespace ermoe {

OpResult bench_op(const ExecContext& outer, const OpCase& op, double seconds) {
  ExecContext ctx = outer;
  ctx.mode = Mode::train;
  const std::vector<Variable> constants(op.inputs.begin(), op.inputs.end());
  OpResult result;
  result.forward = time_runs(2, 5, seconds, {}, [&] { op.run(ctx, constants); });
  if (op.backward_work == 0) return result;

  Tape tape;
  Variable y;
  const ExecContext taped = ctx.with_tape(&tape);
  const auto record_again = [&] {
    y = {};
    tape.clear();
    std::vector<Variable> leaves;
    for (const Tensor& input : op.inputs) leaves.push_back(tape.leaf(input));
    y = op.run(taped, leaves);
  };
  record_again();
  const Tensor dy = ctx.empty(y.shape(), y.dtype(), "gradient");
  fill_uniform(dy, RngKey{9});
  result.backward = time_runs(2, 5, seconds, record_again, [&] { tape.backward(taped, y, dy); });
  return result;
}

}  // namespace ermoe
