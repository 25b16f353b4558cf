#include "ops/attach_loss.h"

#include "tests/bench.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

TEST(AttachLoss, PassesTheValueAndStartsTheTermsGradient) {
  TestBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const Variable y = tape.leaf(random_input(ctx, {Shape{4}}, DType::f64, RngKey{1}));
  const Variable loss = tape.leaf(random_input(ctx, {Shape{}}, DType::f64, RngKey{2}));
  const Variable through = attach_loss(ctx, y, loss, 0.25);
  EXPECT_EQ(to_doubles(through.value), to_doubles(y.value));
  const Tensor dy = random_input(ctx, {Shape{4}}, DType::f64, RngKey{3});
  tape.backward(ctx, through, dy);
  EXPECT_EQ(to_doubles(tape.grad(y)), to_doubles(dy));
  EXPECT_EQ(*tape.grad(loss).data<double>(), 0.25);
}

TEST(AttachLoss, RefusesATermThatIsNoScalar) {
  TestBench bench;
  const Variable y(Tensor::zeros(bench.allocator, {2}, DType::f64));
  EXPECT_THROW(attach_loss(bench.ctx, y, y, 1.0), Error);
}

}  // namespace
}  // namespace ermoe::testing
