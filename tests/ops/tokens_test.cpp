#include "ops/tokens.h"

#include "ops/add.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable concat(const ExecContext& ctx, Vars x) { return concat_tokens(ctx, x[0], x[1]); }
Variable first(const ExecContext& ctx, Vars x) { return select_token(ctx, x[0], 0); }
Variable third(const ExecContext& ctx, Vars x) { return select_token(ctx, x[0], 2); }
Variable mean(const ExecContext& ctx, Vars x) { return mean_pool(ctx, x[0], 0); }
Variable mean_after_first(const ExecContext& ctx, Vars x) { return mean_pool(ctx, x[0], 1); }
Variable skip_first(const ExecContext& ctx, Vars x) { return skip_tokens(ctx, x[0], 1); }
Variable skip_two(const ExecContext& ctx, Vars x) { return skip_tokens(ctx, x[0], 2); }
Variable flatten(const ExecContext& ctx, Vars x) { return reshape(ctx, x[0], {x[0].value.numel()}); }
Variable flat_and_not(const ExecContext& ctx, Vars x) { return add(ctx, flatten(ctx, x), reshape(ctx, add(ctx, x[0], x[0]), {21})); }

OP_CASES(TokensOp, {.name = "concat_one", .inputs = {{.shape = {1, 1, 1}}, {.shape = {1, 1, 1}}}, .run = concat},
         {.name = "concat_ragged", .inputs = {{.shape = {1, 2, 7}}, {.shape = {3, 5, 7}}}, .run = concat},
         {.name = "concat_large", .inputs = {{.shape = {1, 1, 33}}, {.shape = {37, 17, 33}}}, .run = concat},
         {.name = "select_one", .inputs = {{.shape = {1, 1, 1}}}, .run = first},
         {.name = "select_ragged", .inputs = {{.shape = {3, 5, 7}}}, .run = third},
         {.name = "select_large", .inputs = {{.shape = {37, 17, 33}}}, .run = third},
         {.name = "mean_one", .inputs = {{.shape = {1, 1, 1}}}, .run = mean},
         {.name = "mean_ragged", .inputs = {{.shape = {3, 5, 7}}}, .run = mean},
         {.name = "mean_without_first", .inputs = {{.shape = {3, 5, 7}}}, .run = mean_after_first},
         {.name = "mean_large", .inputs = {{.shape = {37, 17, 33}}}, .run = mean_after_first},
         {.name = "concat_of_a_model", .inputs = {{.shape = {1, 1, 96}}, {.shape = {5, 64, 96}}}, .run = concat},
         {.name = "concat_none", .inputs = {{.shape = {1, 2, 8}}, {.shape = {0, 3, 8}}}, .run = concat},
         {.name = "select_of_a_model", .inputs = {{.shape = {5, 65, 96}}}, .run = first},
         {.name = "mean_of_a_model", .inputs = {{.shape = {3, 197, 96}}}, .run = mean_after_first},
         {.name = "mean_none", .inputs = {{.shape = {0, 3, 8}}}, .run = mean},
         {.name = "skip_one", .inputs = {{.shape = {1, 2, 1}}}, .run = skip_first},
         {.name = "skip_ragged", .inputs = {{.shape = {3, 5, 7}}}, .run = skip_two},
         {.name = "skip_large", .inputs = {{.shape = {37, 17, 33}}}, .run = skip_first},
         {.name = "skip_of_a_model", .inputs = {{.shape = {5, 65, 96}}}, .run = skip_first},
         {.name = "skip_no_sequence", .inputs = {{.shape = {0, 3, 8}}}, .run = skip_first},
         {.name = "reshape_ragged", .inputs = {{.shape = {3, 7}}}, .run = flatten},
         {.name = "reshape_of_a_value_used_twice", .inputs = {{.shape = {3, 7}}}, .run = flat_and_not});

TEST(Tokens, EachGoesWhereItBelongs) {
  TestBench bench;
  const auto numbered = [&](const Shape& shape, double start) {
    Tensor t = bench.ctx.empty(shape, DType::f64);
    for (int64_t i = 0; i < t.numel(); ++i) t.data<double>()[i] = start + static_cast<double>(i);
    return Variable(t);
  };
  const Variable prefix = numbered({1, 1, 2}, 100), x = numbered({2, 2, 2}, 0);
  const Variable y = concat_tokens(bench.ctx, prefix, x);
  EXPECT_EQ(y.shape(), (Shape{2, 3, 2}));
  EXPECT_EQ(to_doubles(y.value), (std::vector<double>{100, 101, 0, 1, 2, 3, 100, 101, 4, 5, 6, 7}));
  EXPECT_EQ(to_doubles(select_token(bench.ctx, y, 1).value), (std::vector<double>{0, 1, 4, 5}));
  EXPECT_EQ(to_doubles(mean_pool(bench.ctx, y, 1).value), (std::vector<double>{1, 2, 5, 6}));
  EXPECT_EQ(to_doubles(skip_tokens(bench.ctx, y, 1).value), to_doubles(x.value));
}

TEST(Tokens, ReshapeCopiesNothing) {
  TestBench bench;
  const Variable x(random_input(bench.ctx, {Shape{2, 6}}, DType::f32, RngKey{1}));
  const Variable y = reshape(bench.ctx, x, {3, 4});
  EXPECT_EQ(y.shape(), (Shape{3, 4}));
  EXPECT_TRUE(y.value.shares_memory_with(x.value));
}

TEST(Tokens, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {1, 2, 33}}, {.shape = {67, 17, 33}}}, .run = concat});
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {67, 17, 33}}}, .run = mean_after_first});
}

TEST(Tokens, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape) { return Variable(Tensor::zeros(bench.allocator, shape, DType::f32)); };
  expect_error([&] { concat_tokens(bench.ctx, zeros({1, 1, 3}), zeros({2, 5, 4})); }, {"[concat_tokens]", "(1, 1, 3)", "(2, 5, 4)"});
  expect_error([&] { concat_tokens(bench.ctx, zeros({2, 1, 4}), zeros({2, 5, 4})); }, {"[concat_tokens]", "(2, 1, 4)", "(2, 5, 4)"});
  expect_error([&] { select_token(bench.ctx, zeros({2, 5, 4}), 5); }, {"[select_token]", "5", "(2, 5, 4)"});
  expect_error([&] { mean_pool(bench.ctx, zeros({2, 5, 4}), 5); }, {"[mean_pool]", "5", "(2, 5, 4)"});
  expect_error([&] { skip_tokens(bench.ctx, zeros({2, 5, 4}), 5); }, {"[skip_tokens]", "5", "(2, 5, 4)"});
  expect_error([&] { mean_pool(bench.ctx, zeros({2, 5}), 0); }, {"[mean_pool]", "(2, 5)"});
  expect_error([&] { reshape(bench.ctx, zeros({2, 5}), {3, 3}); }, {"[reshape]", "(2, 5)", "(3, 3)"});
}

}  // namespace
}  // namespace ermoe::testing
