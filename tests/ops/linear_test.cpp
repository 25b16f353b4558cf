#include "ops/linear.h"

#include "autograd/memory/parameter_arena.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"

#include <tuple>

namespace ermoe::testing {
namespace {

Variable with_bias(const ExecContext& ctx, Vars x) { return linear(ctx, x[0], x[1], x[2]); }
Variable without_bias(const ExecContext& ctx, Vars x) { return linear(ctx, x[0], x[1], Variable()); }

OP_CASES(LinearOp, {.name = "one", .inputs = {{.shape = {1}}, {.shape = {1, 1}}, {.shape = {1}}}, .run = with_bias},
         {.name = "ragged", .inputs = {{.shape = {3, 5, 7}}, {.shape = {11, 7}}, {.shape = {11}}}, .run = with_bias},
         {.name = "no_bias", .inputs = {{.shape = {2, 3, 5}}, {.shape = {13, 5}}}, .run = without_bias},
         {.name = "one_column", .inputs = {{.shape = {19, 3}}, {.shape = {1, 3}}, {.shape = {1}}}, .run = with_bias},
         {.name = "large", .inputs = {{.shape = {301, 33}}, {.shape = {65, 33}}, {.shape = {65}}}, .run = with_bias});

#if defined(ERMOE_WITH_CUDA)
TEST(Linear, GpuAgreesOnTransformerShapes) {
  for (const auto& [name, rows, in, out] : std::vector<std::tuple<const char*, int64_t, int64_t, int64_t>>{
           {"qkv", 985, 384, 1152}, {"fc2", 394, 1536, 384}, {"many_rows", 20011, 24, 40}, {"odd", 777, 333, 129}, {"head", 3, 384, 1000}})
    ERMOE_NEEDS_GPU(
        expect_gpu_agrees({.name = name, .inputs = {{.shape = {rows, in}}, {.shape = {out, in}}, {.shape = {out}}}, .run = with_bias}));
}
#endif

TEST(Linear, NoRowsGiveZeroWeightGradients) {
  TestBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const Variable w = tape.leaf(random_input(ctx, {Shape{3, 2}}, DType::f32, RngKey{1}));
  const Variable b = tape.leaf(random_input(ctx, {Shape{3}}, DType::f32, RngKey{2}));
  const Variable y = linear(ctx, Variable(ctx.empty({0, 2}, DType::f32)), w, b);
  EXPECT_EQ(y.shape(), (Shape{0, 3}));
  tape.backward(ctx, y, ctx.empty({0, 3}, DType::f32));
  for (const Variable& leaf : {w, b})
    for (double g : to_doubles(tape.grad(leaf))) EXPECT_EQ(g, 0.0);
}

TEST(Linear, AParameterSharedByTwoLayersReceivesBothGradients) {
  TestBench bench;
  Parameter w;
  w.shape = {4, 4};
  ParameterArena arena(bench.allocator, DType::f64, {&w});
  copy(random_input(bench.ctx, {w.shape}, DType::f64, RngKey{3}), w.value);
  const Tensor x = random_input(bench.ctx, {Shape{5, 4}}, DType::f64, RngKey{4});
  const auto twice = [&](const ExecContext& ctx, const Variable& first, const Variable& second) {
    return linear(ctx, linear(ctx, Variable(x), first, Variable()), second, Variable());
  };
  const auto gradient = [&](bool first, bool second) {
    Tape tape;
    const ExecContext ctx = bench.ctx.with_tape(&tape);
    arena.begin_gradients();
    const Variable y = twice(ctx, first ? Variable(w) : Variable(w.value), second ? Variable(w) : Variable(w.value));
    tape.backward(ctx, y, random_input(ctx, {Shape{5, 4}}, DType::f64, RngKey{5}));
    return to_doubles(w.grad);
  };
  std::vector<double> sum = gradient(true, false);
  const std::vector<double> second = gradient(false, true);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += second[i];
  EXPECT_LE(normalised_error(gradient(true, true), sum), 1e-28);
}

TEST(Linear, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape, DType dtype = DType::f32) { return Variable(Tensor::zeros(bench.allocator, shape, dtype)); };
  expect_error([&] { linear(bench.ctx, zeros({2, 3}), zeros({5, 4}), Variable()); }, {"[linear]", "(2, 3)", "(5, 4)"});
  expect_error([&] { linear(bench.ctx, zeros({2, 4}), zeros({5, 4}), zeros({4})); }, {"[linear]", "(5, 4)", "(4)"});
  expect_error([&] { linear(bench.ctx, zeros({2, 4}), zeros({5, 4}, DType::f64), Variable()); }, {"[linear]", "f32", "f64"});
  expect_error([&] { linear(bench.ctx, zeros({}), zeros({5, 4}), Variable()); }, {"[linear]", "()", "(5, 4)"});
}

}  // namespace
}  // namespace ermoe::testing
