#include "ops/at_most.h"

#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return at_most(ctx, x[0], 0.3); }

OP_CASES(AtMostOp, {.name = "one", .inputs = {{.shape = {1}}}, .run = run}, {.name = "ragged", .inputs = {{.shape = {3, 7}}}, .run = run},
         {.name = "large", .inputs = {{.shape = {131, 129}}}, .run = run});

TEST(AtMost, LeavesWhatLiesBelowAndHasNoGradientFromTheBoundOn) {
  TestBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const std::vector<double> values = {-1, 1.9, 2, 3, NAN}, bounded = {-1, 1.9, 2, 2}, slopes = {1, 1, 0, 0};
  const Variable x = tape.leaf(Tensor::from<double>(bench.allocator, {5}, values));
  const Variable y = at_most(ctx, x, 2);
  const Tensor ones = ctx.empty({5}, DType::f64);
  fill(ones, 1);
  tape.backward(ctx, y, ones);
  const auto got = to_doubles(y.value), grad = to_doubles(tape.grad(x));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(got[i], bounded[i]);
    EXPECT_EQ(grad[i], slopes[i]);
  }
  EXPECT_TRUE(std::isnan(got[4]));
}

}  // namespace
}  // namespace ermoe::testing
