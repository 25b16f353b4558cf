#include "ops/leading_basis.h"

#include "tests/ops/bf16_output.h"
#include "tests/ops/expect_error.h"

namespace ermoe::testing {
namespace {

Variable leading_two(const ExecContext& ctx, Vars x) { return leading_basis(ctx, x[0], 2); }
Variable leading_77(const ExecContext& ctx, Vars x) { return leading_basis(ctx, x[0], 77); }
OpInput factor(int64_t experts, int64_t width, int64_t columns) {
  return {.shape = {experts, width, columns}, .precision = OpInput::Precision::master};
}

OP_CASES(LeadingBasisOp, {.name = "some", .inputs = {factor(3, 7, 5)}, .run = leading_two},
         {.name = "all", .inputs = {factor(3, 7, 2)}, .run = leading_two},
         {.name = "large", .inputs = {factor(5, 90, 100)}, .run = leading_77});

#if defined(ERMOE_WITH_CUDA)
TEST(LeadingBasis, MakesBf16OnTheGpuFromFactorsInF32) {
  const auto narrow = [](const ExecContext& ctx, Vars x) { return leading_basis(ctx, x[0], 77, DType::bf16); };
  ERMOE_NEEDS_GPU(expect_bf16_output_agrees({.name = "", .inputs = {factor(5, 90, 100)}, .run = narrow},
                                            {.name = "", .inputs = {factor(5, 90, 100)}, .run = leading_77}));
}
#endif

TEST(LeadingBasis, RowsAreTheFirstColumns) {
  TestBench bench;
  const Tensor v = random_input(bench.ctx, {{2, 4, 3}}, DType::f32, RngKey{1});
  const Tensor basis = leading_basis(bench.ctx, Variable(v), 2).value;
  for (int64_t e = 0; e < 2; ++e)
    for (int64_t r = 0; r < 2; ++r)
      for (int64_t d = 0; d < 4; ++d) EXPECT_EQ(basis.data<float>()[(e * 2 + r) * 4 + d], v.data<float>()[(e * 4 + d) * 3 + r]);
  expect_error([&] { leading_basis(bench.ctx, Variable(v), 4); }, {"[leading_basis]", "rank 4", "(2, 4, 3)"});
}

}  // namespace
}  // namespace ermoe::testing
