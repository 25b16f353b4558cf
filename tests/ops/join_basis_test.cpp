#include "ops/join_basis.h"

#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

/// f32 wherever the model computes in bf16.
OpInput factor(const Shape& shape) { return {.shape = shape, .precision = OpInput::Precision::master}; }

OP_CASES(JoinBasisOp,
         {.name = "with_free",
          .inputs = {factor({5, 6}), factor({3, 5, 2}), factor({1, 5, 4})},
          .run = [](const ExecContext& ctx, Vars x) { return join_basis(ctx, x[0], x[1], x[2]); }},
         {.name = "without_free", .inputs = {factor({4, 4}), factor({2, 4, 1})}, .run = [](const ExecContext& ctx, Vars x) {
            return join_basis(ctx, x[0], x[1], Variable());
          }});

TEST(JoinBasis, ColumnsLieWhereTheyBelong) {
  TestBench bench;
  const Tensor basis = random_input(bench.ctx, {Shape{3, 4}}, DType::f64, RngKey{1});  // E 2, R 2
  const Tensor rest = random_input(bench.ctx, {Shape{2, 3, 1}}, DType::f64, RngKey{2});
  const Tensor v = join_basis(bench.ctx, Variable(basis), Variable(rest), Variable()).value;
  for (int64_t e = 0; e < 2; ++e)
    for (int64_t d = 0; d < 3; ++d) {
      const double* row = v.data<double>() + (e * 3 + d) * 3;
      EXPECT_EQ(row[0], basis.data<double>()[d * 4 + e * 2]);
      EXPECT_EQ(row[1], basis.data<double>()[d * 4 + e * 2 + 1]);
      EXPECT_EQ(row[2], rest.data<double>()[e * 3 + d]);
    }
}

TEST(JoinBasis, RefusesAShapeThatDoesNotFit) {
  TestBench bench;
  const Variable basis(Tensor::zeros(bench.allocator, {4, 4}, DType::f64)), rest(Tensor::zeros(bench.allocator, {3, 4, 1}, DType::f64));
  EXPECT_THROW(join_basis(bench.ctx, basis, rest, Variable()), Error);
}

}  // namespace
}  // namespace ermoe::testing
