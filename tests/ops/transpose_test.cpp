#include "ops/transpose.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return transpose(ctx, x[0]); }

OP_CASES(TransposeOp, {.name = "one", .inputs = {{.shape = {1, 1}}}, .run = run},
         {.name = "ragged", .inputs = {{.shape = {3, 5, 7}}}, .run = run}, {.name = "row", .inputs = {{.shape = {2, 1, 33}}}, .run = run},
         {.name = "tiles", .inputs = {{.shape = {2, 65, 37}}}, .run = run},
         {.name = "many", .inputs = {{.shape = {3, 2, 33, 32}}}, .run = run},
         {.name = "none", .inputs = {{.shape = {0, 4, 3}}}, .run = run});

TEST(Transpose, ExchangesTheLastTwoAxes) {
  TestBench bench;
  const Tensor x = random_input(bench.ctx, {{3, 41, 34}}, DType::f32, RngKey{1});
  const Tensor y = transpose(bench.ctx, Variable(x)).value;
  ASSERT_EQ(y.shape(), Shape({3, 34, 41}));
  for (int64_t b = 0; b < 3; ++b)
    for (int64_t i = 0; i < 41; ++i)
      for (int64_t j = 0; j < 34; ++j) ASSERT_EQ(y.data<float>()[(b * 34 + j) * 41 + i], x.data<float>()[(b * 41 + i) * 34 + j]);
  expect_error([&] { transpose(bench.ctx, Variable(random_input(bench.ctx, {{3}}, DType::f32, RngKey{1}))); }, {"[transpose]", "(3)"});
}

}  // namespace
}  // namespace ermoe::testing
