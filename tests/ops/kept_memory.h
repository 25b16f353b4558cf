// What a feed-forward network holds between forward and backward pass, and at the peak of the backward pass: shared by the
// tests of the dense and of the experts' network. Read next: tests/ops/op_case.h.
#pragma once

#include "tests/ops/op_case.h"

namespace ermoe::testing {

/// Of tensors of `widest` bytes, beside which all others of `op` are small, one is kept and two live at the peak.
inline void expect_one_kept_and_two_at_the_peak(const OpCase& op, double widest) {
  TestBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  std::vector<Variable> vars;
  for (size_t i = 0; i < op.inputs.size(); ++i) vars.push_back(tape.leaf(random_input(ctx, op.inputs[i], DType::f32, RngKey{31}.fold(i))));
  const size_t before = bench.allocator.stats().live;
  const Variable y = op.run(ctx, vars);
  const size_t kept = bench.allocator.stats().live;
  EXPECT_NEAR(static_cast<double>(kept - before), widest, 0.2 * widest);
  const Tensor dy = random_input(ctx, {y.shape()}, DType::f32, RngKey{32});
  bench.allocator.reset_peak();
  tape.backward(ctx, y, dy);
  EXPECT_NEAR(static_cast<double>(bench.allocator.stats().peak - before), 2 * widest, 0.2 * widest);
}

}  // namespace ermoe::testing
