#include "ops/layer_scale.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable run_layer_scale(const ExecContext& ctx, Vars x) { return layer_scale(ctx, x[0], x[1]); }

OP_CASES(LayerScaleOp, {.name = "one", .inputs = {{.shape = {1}}, {.shape = {1}}}, .run = run_layer_scale},
         {.name = "ragged", .inputs = {{.shape = {3, 5, 7}}, {.shape = {7}}}, .run = run_layer_scale},
         {.name = "large", .inputs = {{.shape = {301, 65}}, {.shape = {65}}}, .run = run_layer_scale},
         {.name = "width_384", .inputs = {{.shape = {197, 384}}, {.shape = {384}}}, .run = run_layer_scale},
         {.name = "many_rows", .inputs = {{.shape = {4099, 40}}, {.shape = {40}}}, .run = run_layer_scale},
         {.name = "no_rows", .inputs = {{.shape = {0, 40}}, {.shape = {40}}}, .run = run_layer_scale});

TEST(LayerScale, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {1237, 33}}, {.shape = {33}}}, .run = run_layer_scale});
}

TEST(LayerScale, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape) { return Variable(Tensor::zeros(bench.allocator, shape, DType::f32)); };
  expect_error([&] { layer_scale(bench.ctx, zeros({2, 3}), zeros({2})); }, {"[layer_scale]", "(2, 3)", "(2)"});
}

}  // namespace
}  // namespace ermoe::testing
