#include "ops/layer_norm.h"

#include "ops/add.h"
#include "ops/scale.h"
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

// Both outputs are used, as a block does: the gradient of the sum comes from two sides.
Variable joined(const ExecContext& ctx, const NormedSum& r) { return add(ctx, r.normed, scale(ctx, r.sum, 0.5)); }
Variable run_residual(const ExecContext& ctx, Vars x) { return joined(ctx, add_layer_norm(ctx, x[0], x[1], x[2], x[3], 1e-6)); }
Variable run_doubled(const ExecContext& ctx, Vars x) { return joined(ctx, add_layer_norm(ctx, x[0], x[0], x[1], x[2], 1e-6)); }

OpCase residual_case(const char* name, const Shape& shape) {
  const Shape row{shape[-1]};
  return {.name = name, .inputs = {{.shape = shape}, {.shape = shape}, {.shape = row}, {.shape = row}}, .run = run_residual};
}

OP_CASES(AddLayerNormOp, residual_case("one_row", {1, 37}), residual_case("ragged", {3, 5, 7}), residual_case("no_rows", {0, 24}),
         residual_case("many_rows", {4099, 24}), residual_case("width_384", {2, 67, 384}), residual_case("width_768", {41, 768}),
         residual_case("width_1016", {19, 1016}), residual_case("width_2056", {17, 2056}), residual_case("odd_width_1003", {33, 1003}),
         {.name = "one_variable_as_both", .inputs = {{.shape = {37, 64}}, {.shape = {64}}, {.shape = {64}}}, .run = run_doubled});

enum class Uses { both, sum, normed };

/// Values and gradients of add_layer_norm, or of the ops that it stands for, where `uses` of its results go on.
template <typename Bench, typename Op>
std::vector<std::vector<double>> results_of(Bench& bench, DType dtype, const Shape& shape, Uses uses, Op op) {
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  std::vector<Variable> in;
  for (size_t i = 0; i < 4; ++i) in.push_back(tape.leaf(random_input(ctx, {i < 2 ? shape : Shape{shape[-1]}}, dtype, RngKey{i})));
  const NormedSum out = op(ctx, in);
  std::vector<std::vector<double>> results = {to_doubles(out.sum.value), to_doubles(out.normed.value)};
  const Variable root = uses == Uses::both ? joined(ctx, out) : uses == Uses::sum ? out.sum : out.normed;
  tape.backward(ctx, root, random_input(ctx, {shape}, dtype, RngKey{9}));
  for (const Variable& v : in) results.push_back(tape.grad(v).defined() ? to_doubles(tape.grad(v)) : std::vector<double>());
  return results;
}

template <typename Bench>
void expect_equals_two_ops(DType dtype, const Shape& shape) {
  SCOPED_TRACE(shape.str());
  for (const Uses uses : {Uses::both, Uses::sum, Uses::normed}) {
    Bench one, two;
    const auto fused = results_of(one, dtype, shape, uses,
                                  [](const ExecContext& ctx, Vars x) { return add_layer_norm(ctx, x[0], x[1], x[2], x[3], 1e-6); });
    const auto apart = results_of(two, dtype, shape, uses, [](const ExecContext& ctx, Vars x) {
      const Variable sum = add(ctx, x[0], x[1]);
      return NormedSum{sum, layer_norm(ctx, sum, x[2], x[3], 1e-6)};
    });
    EXPECT_EQ(fused, apart) << name_of(dtype) << ", uses " << static_cast<int>(uses);
  }
}

TEST(AddLayerNorm, EqualsAdditionAndLayerNormBitForBit) {
  for (const DType dtype : {DType::f32, DType::f64}) expect_equals_two_ops<TestBench>(dtype, {2, 61, 40});
}

#if defined(ERMOE_WITH_CUDA)
TEST(AddLayerNorm, GpuEqualsAdditionAndLayerNormBitForBit) {
  ERMOE_NEEDS_GPU({
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const Shape& shape : {Shape{3, 67, 384}, Shape{301, 768}, Shape{19, 1003}, Shape{17, 2056}})
        expect_equals_two_ops<GpuBench>(dtype, shape);
  });
}

// Rows of the workloads: every block takes several rounds, the last of them part empty.
TEST(LayerNorm, GpuAgreesOnManyRows) {
  ERMOE_NEEDS_GPU({
    expect_gpu_agrees({.name = "width_384", .inputs = {{.shape = {12611, 384}}, {.shape = {384}}, {.shape = {384}}}, .run = run});
    expect_gpu_agrees({.name = "width_768", .inputs = {{.shape = {6301, 768}}, {.shape = {768}}, {.shape = {768}}}, .run = run});
    expect_gpu_agrees(residual_case("residual_384", {12611, 384}));
  });
}
#endif

TEST(LayerNorm, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {1237, 33}}, {.shape = {33}}, {.shape = {33}}}, .run = run});
  expect_same_bits_for_any_threads(residual_case("", {1237, 33}));
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
  expect_error(
      [&] {
        add_layer_norm(bench.ctx, zeros({2, 4}), zeros({4, 2}), zeros({4}), zeros({4}), 1e-6);
      },
      {"[add_layer_norm]", "(2, 4)", "(4, 2)"});
  expect_error([&] { add_layer_norm(bench.ctx, zeros({2, 4}), Variable(), zeros({4}), zeros({4}), 1e-6); }, {"[add_layer_norm]", "(2, 4)"});
  expect_error(
      [&] {
        add_layer_norm(bench.ctx, zeros({2, 4}), zeros({2, 4}), zeros({3}), zeros({3}), 1e-6);
      },
      {"[add_layer_norm]", "(2, 4)", "(3)"});
}

}  // namespace
}  // namespace ermoe::testing
