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
         {.name = "a_part_with_free",
          .inputs = {factor({5, 8}), factor({2, 5, 1}), factor({1, 5, 3})},
          .run = [](const ExecContext& ctx, Vars x) { return join_basis(ctx, x[0], x[1], x[2], {.first = 1, .experts = 4}); }},
         {.name = "free_ones_alone",
          .inputs = {factor({5, 8}), factor({0, 5, 1}), factor({2, 5, 3})},
          .run = [](const ExecContext& ctx, Vars x) { return join_basis(ctx, x[0], x[1], x[2], {.first = 4, .experts = 4}); }},
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

TEST(JoinBasis, APartIsTheSameAsItsExpertsOfTheWhole) {
  TestBench bench;
  const Tensor basis = random_input(bench.ctx, {Shape{3, 8}}, DType::f64, RngKey{1});  // E 4, R 2
  const Tensor rest = random_input(bench.ctx, {Shape{4, 3, 1}}, DType::f64, RngKey{2});
  const Tensor all = join_basis(bench.ctx, Variable(basis), Variable(rest), Variable()).value;
  const Tensor two = join_basis(bench.ctx, Variable(basis), Variable(rest.slice(1, 3)), Variable(), {.first = 1, .experts = 4}).value;
  EXPECT_EQ(to_doubles(two), to_doubles(all.slice(1, 3)));
}

TEST(JoinBasis, RefusesAShapeThatDoesNotFit) {
  TestBench bench;
  const Variable basis(Tensor::zeros(bench.allocator, {4, 4}, DType::f64)), rest(Tensor::zeros(bench.allocator, {3, 4, 1}, DType::f64));
  EXPECT_THROW(join_basis(bench.ctx, basis, rest, Variable()), Error);
}

}  // namespace
}  // namespace ermoe::testing
