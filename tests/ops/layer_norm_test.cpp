#include "ops/layer_norm.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return layer_norm(ctx, x[0], x[1], x[2], 1e-6); }
Variable run_shared(const ExecContext& ctx, Vars x) { return layer_norm(ctx, x[0], x[1], x[1], 1e-6); }

OP_CASES(LayerNormOp, {.name = "one", .inputs = {{.shape = {1}}, {.shape = {1}}, {.shape = {1}}}, .run = run},
         {.name = "ragged", .inputs = {{.shape = {3, 5, 7}}, {.shape = {7}}, {.shape = {7}}}, .run = run},
         {.name = "one_row", .inputs = {{.shape = {1, 37}}, {.shape = {37}}, {.shape = {37}}}, .run = run},
         {.name = "large", .inputs = {{.shape = {301, 65}}, {.shape = {65}}, {.shape = {65}}}, .run = run},
         {.name = "no_rows", .inputs = {{.shape = {0, 24}}, {.shape = {24}}, {.shape = {24}}}, .run = run},
         {.name = "many_rows", .inputs = {{.shape = {4099, 40}}, {.shape = {40}}, {.shape = {40}}}, .run = run},
         {.name = "width_384", .inputs = {{.shape = {2, 67, 384}}, {.shape = {384}}, {.shape = {384}}}, .run = run},
         {.name = "width_768", .inputs = {{.shape = {301, 768}}, {.shape = {768}}, {.shape = {768}}}, .run = run},
         {.name = "width_1016", .inputs = {{.shape = {19, 1016}}, {.shape = {1016}}, {.shape = {1016}}}, .run = run},
         {.name = "width_2056", .inputs = {{.shape = {17, 2056}}, {.shape = {2056}}, {.shape = {2056}}}, .run = run},
         {.name = "width_4096", .inputs = {{.shape = {3, 4096}}, {.shape = {4096}}, {.shape = {4096}}}, .run = run},
         {.name = "odd_width_1003", .inputs = {{.shape = {33, 1003}}, {.shape = {1003}}, {.shape = {1003}}}, .run = run},
         {.name = "odd_width_3001", .inputs = {{.shape = {3, 3001}}, {.shape = {3001}}, {.shape = {3001}}}, .run = run},
         {.name = "one_variable_as_weight_and_bias", .inputs = {{.shape = {37, 64}}, {.shape = {64}}}, .run = run_shared});

TEST(LayerNorm, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {1237, 33}}, {.shape = {33}}, {.shape = {33}}}, .run = run});
}

TEST(LayerNorm, RowsHaveZeroMeanAndUnitVariance) {
  TestBench bench;
  const int64_t n = 129;
  Tensor x = random_input(bench.ctx, {Shape{4, n}}, DType::f64, RngKey{1});
  for (double& v : x.span<double>()) v = 1e4 + 3 * v;  // a large offset must not cost the variance its digits
  Tensor ones = bench.ctx.empty({n}, DType::f64);
  std::ranges::fill(ones.span<double>(), 1.0);
  const Variable y = layer_norm(bench.ctx, Variable(x), Variable(ones), Variable(Tensor::zeros(bench.allocator, {n}, DType::f64)), 0);
  for (int64_t r = 0; r < 4; ++r) {
    double sum = 0, squares = 0;
    const Tensor row = y.value.at(r);
    for (const double v : row.span<double>()) {
      sum += v;
      squares += v * v;
    }
    EXPECT_NEAR(sum / n, 0, 1e-10);
    EXPECT_NEAR(squares / n, 1, 1e-10);
  }
}

TEST(LayerNorm, FrozenWeightsLeaveTheInputGradientAsItIs) {
  TestBench bench;
  const auto gradient = [&](bool frozen) {
    Tape tape;
    const ExecContext ctx = bench.ctx.with_tape(&tape);
    std::vector<Variable> v;
    for (size_t i = 0; i < 3; ++i) {
      Tensor t = random_input(ctx, {i == 0 ? Shape{9, 5} : Shape{5}}, DType::f64, RngKey{i});
      v.push_back(i > 0 && frozen ? Variable(t) : tape.leaf(t));
    }
    tape.backward(ctx, run(ctx, v), random_input(ctx, {Shape{9, 5}}, DType::f64, RngKey{7}));
    return to_doubles(tape.grad(v[0]));
  };
  EXPECT_EQ(gradient(false), gradient(true));
}

TEST(LayerNorm, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape) { return Variable(Tensor::zeros(bench.allocator, shape, DType::f32)); };
  expect_error([&] { layer_norm(bench.ctx, zeros({2, 384}), zeros({192}), zeros({192}), 1e-6); }, {"[layer_norm]", "(2, 384)", "(192)"});
  expect_error([&] { layer_norm(bench.ctx, zeros({2, 4}), zeros({4}), zeros({3}), 1e-6); }, {"[layer_norm]", "(2, 4)", "(3)"});
  expect_error([&] { layer_norm(bench.ctx, zeros({2, 4}), zeros({4}), Variable(), 1e-6); }, {"[layer_norm]", "(2, 4)"});
}

}  // namespace
}  // namespace ermoe::testing
