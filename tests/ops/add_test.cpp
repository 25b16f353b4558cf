#include "ops/add.h"

#include "ops/scale.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable run_add(const ExecContext& ctx, Vars x) { return add(ctx, x[0], x[1]); }
Variable run_add_twice(const ExecContext& ctx, Vars x) { return add(ctx, add(ctx, x[0], x[0]), scale(ctx, x[0], -0.3)); }
Variable run_rows(const ExecContext& ctx, Vars x) { return add_rows(ctx, x[0], x[1]); }
Variable run_bias(const ExecContext& ctx, Vars x) { return add_bias(ctx, x[0], x[1]); }

OP_CASES(AddOp, {.name = "one", .inputs = {{.shape = {1}}, {.shape = {1}}}, .run = run_add},
         {.name = "ragged", .inputs = {{.shape = {3, 5, 7}}, {.shape = {3, 5, 7}}}, .run = run_add},
         {.name = "large", .inputs = {{.shape = {131, 129}}, {.shape = {131, 129}}}, .run = run_add},
         {.name = "one_input_three_times", .inputs = {{.shape = {3, 7}}}, .run = run_add_twice},
         {.name = "rows_one", .inputs = {{.shape = {1}}, {.shape = {1}}}, .run = run_rows},
         {.name = "rows_ragged", .inputs = {{.shape = {5, 3, 7}}, {.shape = {1, 3, 7}}}, .run = run_rows},
         {.name = "rows_large", .inputs = {{.shape = {19, 13, 77}}, {.shape = {1, 13, 77}}}, .run = run_rows},
         {.name = "bias_one", .inputs = {{.shape = {1, 1}}, {.shape = {1}}}, .run = run_bias},
         {.name = "bias_ragged", .inputs = {{.shape = {3, 5, 7}}, {.shape = {7}}}, .run = run_bias},
         {.name = "bias_large", .inputs = {{.shape = {301, 65}}, {.shape = {65}}}, .run = run_bias},
         {.name = "none", .inputs = {{.shape = {0, 8}}, {.shape = {0, 8}}}, .run = run_add},
         {.name = "rows_of_a_model", .inputs = {{.shape = {3, 65, 96}}, {.shape = {1, 65, 96}}}, .run = run_rows},
         {.name = "bias_of_a_model", .inputs = {{.shape = {197, 384}}, {.shape = {384}}}, .run = run_bias},
         {.name = "bias_shorter_than_a_pack", .inputs = {{.shape = {37, 3}}, {.shape = {3}}}, .run = run_bias});

TEST(Add, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {67, 5, 77}}, {.shape = {1, 5, 77}}}, .run = run_rows});
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {1237, 33}}, {.shape = {33}}}, .run = run_bias});
}

TEST(Add, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape) { return Variable(Tensor::zeros(bench.allocator, shape, DType::f32)); };
  expect_error([&] { add(bench.ctx, zeros({2, 3}), zeros({3, 2})); }, {"[add]", "(2, 3)", "(3, 2)"});
  expect_error([&] { add_rows(bench.ctx, zeros({2, 3}), zeros({2, 3})); }, {"[add_rows]", "(2, 3)"});
  expect_error([&] { add_rows(bench.ctx, zeros({2, 3, 4}), zeros({1, 4})); }, {"[add_rows]", "(2, 3, 4)", "(1, 4)"});
  expect_error([&] { add_bias(bench.ctx, zeros({2, 3}), zeros({2})); }, {"[add_bias]", "(2, 3)", "(2)"});
}

}  // namespace
}  // namespace ermoe::testing
