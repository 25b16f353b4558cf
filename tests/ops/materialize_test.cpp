#include "ops/materialize.h"

#include "ops/leading_basis.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return materialize(ctx, x[0], x[1], x[2]); }

std::vector<OpInput> factors(int64_t experts, int64_t m, int64_t n, int64_t r) {
  return {{.shape = {experts, m, r}}, {.shape = {experts, r}}, {.shape = {experts, n, r}}};
}

OP_CASES(MaterializeOp, {.name = "one", .inputs = factors(1, 1, 1, 1), .run = run},
         {.name = "tall", .inputs = factors(3, 9, 5, 4), .run = run}, {.name = "wide", .inputs = factors(2, 4, 11, 3), .run = run},
         {.name = "large", .inputs = factors(4, 33, 65, 34), .run = run});

TEST(Materialize, RefusesFactorsThatDoNotFit) {
  TestBench bench;
  const auto make = [&](Shape shape) { return Variable(random_input(bench.ctx, {shape}, DType::f32, RngKey{1})); };
  expect_error([&] { materialize(bench.ctx, make({2, 5, 3}), make({2, 4}), make({2, 6, 3})); }, {"[materialize]", "(2, 5, 3)", "(2, 4)"});
  expect_error([&] { materialize(bench.ctx, make({2, 5, 3}), make({2, 3}), make({2, 6, 4})); }, {"[materialize]", "(2, 6, 4)"});
}

Variable leading_two(const ExecContext& ctx, Vars x) { return leading_basis(ctx, x[0], 2); }

OP_CASES(LeadingBasisOp, {.name = "some", .inputs = {{.shape = {3, 7, 5}}}, .run = leading_two},
         {.name = "all", .inputs = {{.shape = {3, 7, 2}}}, .run = leading_two},
         {.name = "large", .inputs = {{.shape = {5, 90, 100}}}, .run = [](const ExecContext& ctx, Vars x) {
            return leading_basis(ctx, x[0], 77);
          }});

TEST(LeadingBasis, RowsAreTheFirstColumns) {
  TestBench bench;
  const Tensor v = random_input(bench.ctx, {{2, 4, 3}}, DType::f32, RngKey{1});
  const Tensor basis = leading_basis(bench.ctx, Variable(v), 2).value;
  for (int64_t e = 0; e < 2; ++e)
    for (int64_t r = 0; r < 2; ++r)
      for (int64_t d = 0; d < 4; ++d) EXPECT_EQ(basis.data<float>()[(e * 2 + r) * 4 + d], v.data<float>()[(e * 4 + d) * 3 + r]);
  expect_error([&] { leading_basis(bench.ctx, Variable(v), 4); }, {"[leading_basis]", "rank 4", "(2, 4, 3)"});
}

TEST(Materialize, BitsDoNotDependOnTheNumberOfThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = factors(5, 133, 71, 65), .run = run});
}

}  // namespace
}  // namespace ermoe::testing
