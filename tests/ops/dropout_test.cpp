#include "ops/dropout.h"

#include "ops/step_results.h"
#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

#include <limits>

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return dropout(ctx, x[0], 0.3, RngKey{11}); }
Variable run_depth(const ExecContext& ctx, Vars x) { return stochastic_depth(ctx, x[0], 0.4, RngKey{12}); }

OP_CASES(DropoutOp, {.name = "one", .inputs = {{.shape = {1}}}, .run = run}, {.name = "ragged", .inputs = {{.shape = {3, 7}}}, .run = run},
         {.name = "large", .inputs = {{.shape = {37, 129}}}, .run = run},
         {.name = "depth_one", .inputs = {{.shape = {1}}}, .run = run_depth},
         {.name = "depth_ragged", .inputs = {{.shape = {7, 3, 5}}}, .run = run_depth},
         {.name = "depth_large", .inputs = {{.shape = {301, 33}}}, .run = run_depth},
         {.name = "none", .inputs = {{.shape = {0, 3}}}, .run = run},
         {.name = "depth_none", .inputs = {{.shape = {0, 3}}}, .run = run_depth},
         {.name = "depth_of_a_model", .inputs = {{.shape = {7, 65, 96}}}, .run = run_depth});

using Drop = Variable (*)(const ExecContext&, const Variable&, double, RngKey);

TEST(Dropout, MeanOverKeysIsTheInput) {
  TestBench bench;
  const int keys = 4000;
  for (Drop drop : {Drop{dropout}, Drop{stochastic_depth}})
    for (double p : {0.1, 0.5, 0.9}) {
      const Variable x(random_input(bench.ctx, {Shape{7, 3}}, DType::f64, RngKey{1}));
      std::vector<double> mean(21);
      for (uint64_t key = 0; key < keys; ++key) {
        const std::vector<double> y = to_doubles(drop(bench.ctx, x, p, RngKey{99}.fold(key)).value);
        for (size_t i = 0; i < 21; ++i) mean[i] += y[i] / keys;
      }
      // Each element is x/(1-p) times a Bernoulli number: standard deviation |x| sqrt(p/(1-p)). Five of the mean's.
      for (size_t i = 0; i < 21; ++i) {
        const double v = x.value.data<double>()[i];
        EXPECT_LE(std::abs(mean[i] - v), 5 * std::abs(v) * std::sqrt(p / (1 - p) / keys)) << "element " << i << ", p = " << p;
      }
    }
}

/// A number in the device's memory, folded in when the kernel runs, is a number folded in before.
void folds_in_the_number(const ExecContext& plain) {
  for (Drop drop : {Drop{dropout}, Drop{stochastic_depth}}) {
    const Variable x(random_input(plain, {Shape{37, 9}}, DType::f32, RngKey{1}));
    const Tensor holder = make_step_results(plain, 41);
    ExecContext drawing = plain;
    drawing.draw = draw_number(holder);
    const auto late = to_doubles(on_host(plain, drop(drawing, x, 0.5, RngKey{7}).value));
    EXPECT_EQ(late, to_doubles(on_host(plain, drop(plain, x, 0.5, RngKey{7}.fold(41)).value)));
    EXPECT_NE(late, to_doubles(on_host(plain, drop(plain, x, 0.5, RngKey{7}).value)));
  }
}

TEST(Dropout, FoldsInTheNumberOfTheDevice) { folds_in_the_number(TestBench().ctx); }
#if defined(ERMOE_WITH_CUDA)
TEST(Dropout, GpuFoldsInTheNumberOfTheDevice) { ERMOE_NEEDS_GPU(folds_in_the_number(GpuBench().ctx)); }
#endif

TEST(Dropout, ElementsAreKeptIndependently) {
  TestBench bench;
  const int64_t n = 100'000;
  Tensor ones = bench.ctx.empty({n}, DType::f32);
  std::ranges::fill(ones.span<float>(), 1.0f);
  const Tensor y = dropout(bench.ctx, Variable(ones), 0.25, RngKey{3}).value;
  for (int64_t lag : {1, 2, 3, 4, 256}) {  // 4 and 256: the words of one call, the calls of one block
    int64_t both = 0;
    for (int64_t i = 0; i + lag < n; ++i) both += y.data<float>()[i] > 0 && y.data<float>()[i + lag] > 0;
    const double q = 0.75 * 0.75, count = static_cast<double>(n - lag);
    // Neighbouring pairs share an element, which at most triples the variance.
    EXPECT_LE(std::abs(static_cast<double>(both) / count - q), 5 * std::sqrt(3 * q * (1 - q) / count)) << "lag " << lag;
  }
}

TEST(Dropout, ASampleIsKeptOrDroppedAsAWhole) {
  TestBench bench;
  const Variable x(random_input(bench.ctx, {Shape{600, 5}, OpInput::Fill::positive}, DType::f64, RngKey{1}));
  const Tensor y = stochastic_depth(bench.ctx, x, 0.5, RngKey{2}).value;
  int64_t kept = 0;
  for (int64_t b = 0; b < 600; ++b) {
    kept += y.at(b).data<double>()[0] != 0;
    for (int64_t i = 0; i < 5; ++i) {
      const double expected = y.at(b).data<double>()[0] == 0 ? 0 : 2 * x.value.at(b).data<double>()[i];
      EXPECT_EQ(y.at(b).data<double>()[i], expected);
    }
  }
  EXPECT_GT(kept, 300 - 62);  // five standard deviations of a fair coin
  EXPECT_LT(kept, 300 + 62);
}

TEST(Dropout, IsTheIdentityInEvalModeAndForZero) {
  TestBench bench;
  const Variable x(random_input(bench.ctx, {Shape{3, 7}}, DType::f32, RngKey{1}));
  ExecContext eval = bench.ctx;
  eval.mode = Mode::eval;
  for (Drop drop : {Drop{dropout}, Drop{stochastic_depth}}) {
    EXPECT_TRUE(drop(eval, x, 0.5, RngKey{1}).value.shares_memory_with(x.value));
    EXPECT_TRUE(drop(bench.ctx, x, 0, RngKey{1}).value.shares_memory_with(x.value));
    EXPECT_FALSE(drop(bench.ctx, x, 0.5, RngKey{1}).value.shares_memory_with(x.value));
  }
}

TEST(Dropout, TheKeyDecides) {
  TestBench bench;
  const Variable x(random_input(bench.ctx, {Shape{64, 9}}, DType::f32, RngKey{1}));
  for (Drop drop : {Drop{dropout}, Drop{stochastic_depth}}) {
    EXPECT_EQ(to_doubles(drop(bench.ctx, x, 0.5, RngKey{1}).value), to_doubles(drop(bench.ctx, x, 0.5, RngKey{1}).value));
    EXPECT_NE(to_doubles(drop(bench.ctx, x, 0.5, RngKey{1}).value), to_doubles(drop(bench.ctx, x, 0.5, RngKey{2}).value));
  }
}

TEST(Dropout, ADroppedElementIsZeroEvenWhereTheInputIsNot) {
  TestBench bench;
  Tensor x = bench.ctx.empty({1000}, DType::f32);
  std::ranges::fill(x.span<float>(), std::numeric_limits<float>::quiet_NaN());
  int64_t zeros = 0;
  for (double v : to_doubles(dropout(bench.ctx, Variable(x), 0.5, RngKey{1}).value)) zeros += v == 0;
  EXPECT_GT(zeros, 400);
  EXPECT_LT(zeros, 600);
}

TEST(Dropout, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {123, 77}}}, .run = run});
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {301, 33}}}, .run = run_depth});
}

TEST(Dropout, WrongInputsAreRefused) {
  TestBench bench;
  const Variable x(Tensor::zeros(bench.allocator, {2}, DType::f32));
  for (double p : {-0.1, 1.0, std::nan("")}) {
    expect_error([&] { dropout(bench.ctx, x, p, RngKey{}); }, {"[dropout]", "[0, 1)"});
    expect_error([&] { stochastic_depth(bench.ctx, x, p, RngKey{}); }, {"[stochastic_depth]", "[0, 1)"});
  }
  expect_error([&] { stochastic_depth(bench.ctx, Variable(Tensor::zeros(bench.allocator, {}, DType::f32)), 0.5, RngKey{}); },
               {"[stochastic_depth]", "()"});
}

}  // namespace
}  // namespace ermoe::testing
