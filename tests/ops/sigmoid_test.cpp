#include "ops/sigmoid.h"

#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return sigmoid(ctx, x[0]); }

OP_CASES(SigmoidOp, {.name = "one", .inputs = {{.shape = {1}}}, .run = run}, {.name = "ragged", .inputs = {{.shape = {3, 7}}}, .run = run},
         {.name = "large", .inputs = {{.shape = {131, 129}}}, .run = run});

TEST(Sigmoid, IsItsDefinitionAndSaturates) {
  TestBench bench;
  const std::vector<float> x = {-200, -20, -1, 0, 0.5f, 3, 20, 200, NAN};
  const auto y = to_doubles(sigmoid(bench.ctx, Variable(Tensor::from<float>(bench.allocator, {9}, x))).value);
  for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(y[i], 1 / (1 + std::exp(-static_cast<double>(x[i]))), 3e-7) << x[i];
  EXPECT_TRUE(std::isnan(y[8]));
}

}  // namespace
}  // namespace ermoe::testing
