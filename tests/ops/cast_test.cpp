// Cast: rounds as bf16 and f32 do, and its gradient comes back in the input's own precision.
#include "ops/cast.h"

#include "ops/scale.h"
#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

Variable up(const ExecContext& ctx, Vars x) { return cast(ctx, x[0], DType::f64); }

OP_CASES(CastOp, {.name = "up", .inputs = {{.shape = {3, 7}}}, .run = [](const ExecContext& ctx, Vars x) {
                    return scale(ctx, cast(ctx, x[0], master_of(x[0].dtype())), 2.0);
                  }});

TEST(Cast, RoundsAndGivesTheGradientBackInItsOwnPrecision) {
  TestBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const Variable x = tape.leaf(random_input(ctx, {Shape{5, 3}}, DType::f32, RngKey{1}));
  const std::vector<Variable> in{x};
  const Variable y = up(ctx, in);
  EXPECT_EQ(y.dtype(), DType::f64);
  EXPECT_EQ(to_doubles(y.value), to_doubles(x.value));
  const Tensor dy = random_input(ctx, {Shape{5, 3}}, DType::f64, RngKey{2});
  tape.backward(ctx, y, dy.clone());
  EXPECT_EQ(tape.grad(x).dtype(), DType::f32);
  EXPECT_EQ(to_doubles(tape.grad(x)), to_doubles(dy));
}

TEST(Cast, ToItsOwnDtypeIsNothing) {
  TestBench bench;
  const Variable x(random_input(bench.ctx, {Shape{2}}, DType::f32, RngKey{1}));
  EXPECT_TRUE(cast(bench.ctx, x, DType::f32).value.shares_memory_with(x.value));
}

}  // namespace
}  // namespace ermoe::testing
