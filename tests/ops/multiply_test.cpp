#include "ops/multiply.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return multiply(ctx, x[0], x[1]); }
Variable square(const ExecContext& ctx, Vars x) { return multiply(ctx, x[0], x[0]); }

OP_CASES(MultiplyOp, {.name = "one", .inputs = {{.shape = {1}}, {.shape = {1}}}, .run = run},
         {.name = "ragged", .inputs = {{.shape = {3, 5, 7}}, {.shape = {3, 5, 7}}}, .run = run},
         {.name = "with_itself", .inputs = {{.shape = {3, 7}}}, .run = square},
         {.name = "none", .inputs = {{.shape = {0, 8}}, {.shape = {0, 8}}}, .run = run},
         {.name = "large", .inputs = {{.shape = {301, 65}}, {.shape = {301, 65}}}, .run = run});

TEST(Multiply, IsElementByElement) {
  TestBench bench;
  const std::vector<double> a = {1, -2, 3}, b = {4, 5, 0};
  const auto on_bench = [&](const std::vector<double>& v) { return Variable(Tensor::from<double>(bench.allocator, {3}, v)); };
  EXPECT_EQ(to_doubles(multiply(bench.ctx, on_bench(a), on_bench(b)).value), (std::vector<double>{4, -10, 0}));
}

TEST(Multiply, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {1237, 33}}, {.shape = {1237, 33}}}, .run = run});
}

TEST(Multiply, WrongInputsAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape) { return Variable(Tensor::zeros(bench.allocator, shape, DType::f32)); };
  expect_error([&] { multiply(bench.ctx, zeros({2, 3}), zeros({3, 2})); }, {"[multiply]", "(2, 3)", "(3, 2)"});
}

}  // namespace
}  // namespace ermoe::testing
