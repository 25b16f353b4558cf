#include "ops/add_noise.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

Variable noisy(const ExecContext& ctx, Vars x) { return add_noise(ctx, x[0], 0.25, RngKey{9}); }

OP_CASES(AddNoiseOp, {.name = "ragged", .inputs = {{.shape = {3, 7}, .precision = OpInput::Precision::master}}, .run = noisy},
         {.name = "large", .inputs = {{.shape = {300, 8}, .precision = OpInput::Precision::master}}, .run = noisy},
         {.name = "nothing", .inputs = {{.shape = {0, 8}, .precision = OpInput::Precision::master}}, .run = noisy});

TEST(AddNoise, HasTheDeviationAskedForAndNoMean) {
  TestBench bench;
  const Tensor zeros = Tensor::zeros(bench.allocator, {20000}, DType::f64);
  const std::vector<double> noise = to_doubles(add_noise(bench.ctx, Variable(zeros), 0.5, RngKey{3}).value);
  double sum = 0, squares = 0;
  for (double v : noise) {
    sum += v;
    squares += v * v;
  }
  const double n = static_cast<double>(noise.size());
  EXPECT_NEAR(sum / n, 0, 4 * 0.5 / std::sqrt(n));
  EXPECT_NEAR(std::sqrt(squares / n), 0.5, 4 * 0.5 / std::sqrt(2 * n));
}

TEST(AddNoise, RefusesANegativeDeviation) {
  TestBench bench;
  const Variable x(Tensor::zeros(bench.allocator, {3}, DType::f32));
  expect_error([&] { add_noise(bench.ctx, x, -1, RngKey{3}); }, {"[add_noise]", "-1"});
}

}  // namespace
}  // namespace ermoe::testing
