#include "ops/select_tokens.h"

#include "ops/add.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

/// A token for each of B sequences, the first and the last among them.
Tensor some_places(const ExecContext& ctx, int64_t batch, int64_t tokens) {
  std::vector<int32_t> index;
  for (int64_t b = 0; b < batch; ++b) index.push_back(static_cast<int32_t>((b * 5 + tokens - 1) % tokens));
  return Tensor::from<int32_t>(*ctx.allocator, {batch}, index);
}

Variable run(const ExecContext& ctx, Vars x) { return select_tokens(ctx, x[0], some_places(ctx, x[0].shape()[0], x[0].shape()[1])); }

/// The same token twice: its gradient is added up.
Variable run_twice(const ExecContext& ctx, Vars x) { return add(ctx, run(ctx, x), run(ctx, x)); }

OP_CASES(SelectTokensOp, {.name = "one", .inputs = {{.shape = {1, 1, 1}}}, .run = run},
         {.name = "ragged", .inputs = {{.shape = {3, 5, 7}}}, .run = run},
         {.name = "twice", .inputs = {{.shape = {3, 5, 8}}}, .run = run_twice},
         {.name = "large", .inputs = {{.shape = {37, 17, 33}}}, .run = run},
         {.name = "of_a_model", .inputs = {{.shape = {5, 77, 96}}}, .run = run},
         {.name = "none", .inputs = {{.shape = {0, 3, 8}}}, .run = run});

TEST(SelectTokens, TakesTheNamedTokenOfEach) {
  TestBench bench;
  const Tensor x = Tensor::from<float>(bench.allocator, {2, 3, 2}, std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  const Tensor index = Tensor::from<int32_t>(bench.allocator, {2}, std::vector<int32_t>{2, 0});
  EXPECT_EQ(to_doubles(select_tokens(bench.ctx, Variable(x), index).value), (std::vector<double>{4, 5, 6, 7}));
}

TEST(SelectTokens, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {67, 17, 33}}}, .run = run});
}

TEST(SelectTokens, WrongPlacesAndShapesAreRefused) {
  TestBench bench;
  const Variable x(Tensor::zeros(bench.allocator, {2, 3, 4}, DType::f32));
  const auto select = [&](const std::vector<int32_t>& index) {
    select_tokens(bench.ctx, x, Tensor::from<int32_t>(bench.allocator, {std::ssize(index)}, index));
  };
  expect_error([&] { select({0, 3}); }, {"[select_tokens]", "token 3", "sequence 1", "(2, 3, 4)"});
  expect_error([&] { select({-1, 0}); }, {"[select_tokens]", "token -1", "sequence 0"});
  expect_error([&] { select({0, 0, 0}); }, {"[select_tokens]", "(3)", "(2, 3, 4)"});
  expect_error([&] { select_tokens(bench.ctx, x, Tensor()); }, {"[select_tokens]", "undefined"});
}

}  // namespace
}  // namespace ermoe::testing
