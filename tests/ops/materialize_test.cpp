#include "ops/materialize.h"

#include "tests/ops/bf16_output.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return materialize(ctx, x[0], x[1], x[2]); }

std::vector<OpInput> factors(int64_t experts, int64_t m, int64_t n, int64_t r) {
  constexpr auto master = OpInput::Precision::master;  // factors are f32 wherever W is bf16
  return {{.shape = {experts, m, r}, .precision = master},
          {.shape = {experts, r}, .precision = master},
          {.shape = {experts, n, r}, .precision = master}};
}

OP_CASES(MaterializeOp, {.name = "one", .inputs = factors(1, 1, 1, 1), .run = run},
         {.name = "tall", .inputs = factors(3, 9, 5, 4), .run = run}, {.name = "wide", .inputs = factors(2, 4, 11, 3), .run = run},
         {.name = "large", .inputs = factors(4, 33, 65, 34), .run = run},
         {.name = "many_rows", .inputs = factors(2, 333, 24, 36), .run = run});

#if defined(ERMOE_WITH_CUDA)
TEST(Materialize, MakesBf16OnTheGpuFromFactorsInF32) {
  const auto narrow = [](const ExecContext& ctx, Vars x) {
    const Tensor w = ctx.empty({x[0].shape()[0], x[0].shape()[1], x[2].shape()[1]}, DType::bf16);
    return materialize(ctx, x[0], x[1], x[2], w);
  };
  for (const auto& inputs : {factors(3, 96, 64, 48), factors(2, 37, 19, 11), factors(8, 384, 96, 96)})
    ERMOE_NEEDS_GPU(expect_bf16_output_agrees({.name = "", .inputs = inputs, .run = narrow}, {.name = "", .inputs = inputs, .run = run}));
}
#endif

TEST(Materialize, RefusesFactorsThatDoNotFit) {
  TestBench bench;
  const auto make = [&](Shape shape) { return Variable(random_input(bench.ctx, {shape}, DType::f32, RngKey{1})); };
  expect_error([&] { materialize(bench.ctx, make({2, 5, 3}), make({2, 4}), make({2, 6, 3})); }, {"[materialize]", "(2, 5, 3)", "(2, 4)"});
  expect_error([&] { materialize(bench.ctx, make({2, 5, 3}), make({2, 3}), make({2, 6, 4})); }, {"[materialize]", "(2, 6, 4)"});
  const Tensor narrow = bench.ctx.empty({2, 6, 5}, DType::f32);
  expect_error(
      [&] {
        materialize(bench.ctx, make({2, 5, 3}), make({2, 3}), make({2, 6, 3}), narrow);
      },
      {"[materialize]", "(2, 5, 6)", "(2, 6, 5)"});
}

TEST(Materialize, BitsDoNotDependOnTheNumberOfThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = factors(5, 133, 71, 65), .run = run});
}

}  // namespace
}  // namespace ermoe::testing
