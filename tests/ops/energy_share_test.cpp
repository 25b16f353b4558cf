#include "ops/energy_share.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return energy_share(ctx, x[0], 1e-6); }
Variable run_damped(const ExecContext& ctx, Vars x) { return energy_share(ctx, x[0], 3); }  // as much as the squares

OP_CASES(EnergyShareOp, {.name = "one", .inputs = {{.shape = {1}}}, .run = run_damped},
         {.name = "ragged", .inputs = {{.shape = {3, 5, 7}}}, .run = run},
         {.name = "damped", .inputs = {{.shape = {3, 7}}}, .run = run_damped},
         {.name = "packs", .inputs = {{.shape = {9, 64}}}, .run = run}, {.name = "no_row", .inputs = {{.shape = {0, 8}}}, .run = run},
         {.name = "large", .inputs = {{.shape = {301, 65}}}, .run = run});

TEST(EnergyShare, SharesAreThoseOfTheSquares) {
  TestBench bench;
  const std::vector<double> x = {1, -2, 0, 3, 0, 0};
  const auto y = to_doubles(energy_share(bench.ctx, Variable(Tensor::from<double>(bench.allocator, {2, 3}, x)), 1).value);
  const std::vector<double> want = {1.0 / 6, 4.0 / 6, 0, 0.9, 0, 0};
  for (size_t i = 0; i < want.size(); ++i) EXPECT_DOUBLE_EQ(y[i], want[i]);
}

TEST(EnergyShare, ARowOfZerosHasNoneAndAFiniteGradient) {
  TestBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const Variable leaf = tape.leaf(Tensor::zeros(bench.allocator, {2, 5}, DType::f64)), y = energy_share(ctx, leaf, 1e-6);
  for (const double share : to_doubles(y.value)) EXPECT_EQ(share, 0);
  tape.backward(ctx, y, random_input(ctx, {Shape{2, 5}}, DType::f64, RngKey{2}));
  for (const double g : to_doubles(tape.grad(leaf))) EXPECT_EQ(g, 0);
}

TEST(EnergyShare, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {1237, 33}}}, .run = run});
}

TEST(EnergyShare, WrongInputsAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape) { return Variable(Tensor::zeros(bench.allocator, shape, DType::f32)); };
  expect_error([&] { energy_share(bench.ctx, zeros({}), 1e-6); }, {"[energy_share]", "()"});
  expect_error([&] { energy_share(bench.ctx, zeros({2, 3}), 0); }, {"[energy_share]", "(2, 3)", "eps 0"});
}

}  // namespace
}  // namespace ermoe::testing
