#include "ops/l2_normalize.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return l2_normalize(ctx, x[0], 1e-12); }
Variable run_floored(const ExecContext& ctx, Vars x) { return l2_normalize(ctx, x[0], 1e3); }  // above every norm

OP_CASES(L2NormalizeOp, {.name = "one", .inputs = {{.shape = {1}}}, .run = run},
         {.name = "ragged", .inputs = {{.shape = {3, 5, 7}}}, .run = run},
         {.name = "floored", .inputs = {{.shape = {3, 7}}}, .run = run_floored},
         {.name = "packs", .inputs = {{.shape = {9, 64}}}, .run = run}, {.name = "no_row", .inputs = {{.shape = {0, 8}}}, .run = run},
         {.name = "large", .inputs = {{.shape = {301, 65}}}, .run = run});

TEST(L2Normalize, RowsHaveUnitLengthAndAZeroRowStaysZero) {
  TestBench bench;
  Tensor x = random_input(bench.ctx, {Shape{3, 7}}, DType::f64, RngKey{1});
  std::ranges::fill(x.at(1).span<double>(), 0.0);
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const Variable leaf = tape.leaf(x), y = l2_normalize(ctx, leaf, 1e-12);
  for (int64_t r = 0; r < 3; ++r) {
    double squares = 0;
    const Tensor row = y.value.at(r);
    for (const double v : row.span<double>()) squares += v * v;
    EXPECT_NEAR(squares, r == 1 ? 0 : 1, 1e-14);
  }
  tape.backward(ctx, y, random_input(ctx, {Shape{3, 7}}, DType::f64, RngKey{2}));
  for (double g : to_doubles(tape.grad(leaf))) EXPECT_TRUE(std::isfinite(g));
}

TEST(L2Normalize, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {1237, 33}}}, .run = run});
}

TEST(L2Normalize, WrongInputsAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape) { return Variable(Tensor::zeros(bench.allocator, shape, DType::f32)); };
  expect_error([&] { l2_normalize(bench.ctx, zeros({}), 1e-6); }, {"[l2_normalize]", "()"});
  expect_error([&] { l2_normalize(bench.ctx, zeros({2, 3}), 0); }, {"[l2_normalize]", "(2, 3)", "eps 0"});
}

}  // namespace
}  // namespace ermoe::testing
