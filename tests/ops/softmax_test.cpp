#include "ops/softmax.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return softmax(ctx, x[0]); }

OP_CASES(SoftmaxOp, {.name = "one", .inputs = {{.shape = {1}}}, .run = run},
         {.name = "ragged", .inputs = {{.shape = {3, 5, 7}}}, .run = run},
         {.name = "one_column", .inputs = {{.shape = {9, 1}}}, .run = run}, {.name = "packs", .inputs = {{.shape = {7, 48}}}, .run = run},
         {.name = "no_row", .inputs = {{.shape = {0, 8}}}, .run = run}, {.name = "large", .inputs = {{.shape = {131, 65}}}, .run = run});

TEST(Softmax, FarApartLogitsGiveFiniteRowsThatSumToOne) {
  TestBench bench;
  const std::vector<float> values{1e30f, -1e30f, 0, 1e4f, 1e4f, -1e4f, -500, -501, -502};
  const Variable y = softmax(bench.ctx, Variable(Tensor::from<float>(bench.allocator, {3, 3}, values)));
  for (int64_t r = 0; r < 3; ++r) {
    double sum = 0;
    const Tensor row = y.value.at(r);
    for (const float v : row.span<float>()) sum += v;
    EXPECT_NEAR(sum, 1, 1e-6) << "row " << r;
  }
  EXPECT_EQ(y.value.data<float>()[0], 1.0f);
  EXPECT_NEAR(y.value.data<float>()[3], 0.5, 1e-6);
}

TEST(Softmax, BitsDoNotDependOnThreads) { expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {1237, 33}}}, .run = run}); }

TEST(Softmax, WrongShapesAreRefused) {
  TestBench bench;
  const auto run_on = [&](const Shape& shape) { softmax(bench.ctx, Variable(bench.ctx.empty(shape, DType::f32))); };
  expect_error([&] { run_on({}); }, {"[softmax]", "()"});
  expect_error([&] { run_on({3, 0}); }, {"[softmax]", "(3, 0)"});
  expect_error([&] { softmax(bench.ctx, Variable(bench.ctx.empty({3}, DType::i32))); }, {"[softmax]", "i32"});
}

}  // namespace
}  // namespace ermoe::testing
