#include "ops/cosine.h"

#include "ops/gelu.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return cosine(ctx, x[0], x[1]); }

OP_CASES(CosineOp, {.name = "pair", .inputs = {{.shape = {1, 2}}, {.shape = {1, 2}}}, .run = run},
         {.name = "ragged", .inputs = {{.shape = {5, 3, 7}}, {.shape = {5, 3, 7}}}, .run = run},
         {.name = "packs", .inputs = {{.shape = {13, 8, 48}}, {.shape = {13, 8, 48}}}, .run = run},
         {.name = "no_pair", .inputs = {{.shape = {0, 48}}, {.shape = {0, 48}}}, .run = run},
         {.name = "many", .inputs = {{.shape = {67, 31}}, {.shape = {67, 31}}}, .run = run},
         {.name = "shared_input", .inputs = {{.shape = {4, 9}}}, .run = [](const ExecContext& ctx, Vars x) {
            return cosine(ctx, x[0], gelu(ctx, x[0]));
          }});

TEST(Cosine, BitsDoNotDependOnTheNumberOfThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {801, 5, 13}}, {.shape = {801, 5, 13}}}, .run = run});
}

TEST(Cosine, DoesNotSeeTheLengths) {
  TestBench bench;
  const Tensor a = random_input(bench.ctx, {{6, 5}}, DType::f64, RngKey{1}), b = random_input(bench.ctx, {{6, 5}}, DType::f64, RngKey{2});
  const Tensor s = cosine(bench.ctx, Variable(a), Variable(b)).value;
  for (double& v : a.span<double>()) v *= 1e6;
  const Tensor scaled = cosine(bench.ctx, Variable(a), Variable(b)).value;
  for (int64_t i = 0; i < 6; ++i) {
    EXPECT_NEAR(s.data<double>()[i], scaled.data<double>()[i], 1e-14);
    EXPECT_LE(std::abs(s.data<double>()[i]), 1.0);
  }
}

TEST(Cosine, AZeroVectorScoresZeroWithoutGradient) {
  TestBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  Tensor zero = random_input(ctx, {{2, 3}}, DType::f32, RngKey{1});
  std::fill_n(zero.data<float>(), 3, 0.0f);
  const Variable a = tape.leaf(zero), b = tape.leaf(random_input(ctx, {{2, 3}}, DType::f32, RngKey{2}));
  const Variable s = cosine(ctx, a, b);
  EXPECT_EQ(s.value.data<float>()[0], 0.0f);
  tape.backward(ctx, s, random_input(ctx, {{2}}, DType::f32, RngKey{3}));
  for (const Variable* v : {&a, &b})
    for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(tape.grad(*v).data<float>()[i] != 0.0f, i >= 3) << i;
}

TEST(Cosine, ANaNShows) {
  TestBench bench;
  const Tensor a = random_input(bench.ctx, {{1, 3}}, DType::f32, RngKey{1});
  a.data<float>()[1] = NAN;
  EXPECT_TRUE(std::isnan(
      cosine(bench.ctx, Variable(a), Variable(random_input(bench.ctx, {{1, 3}}, DType::f32, RngKey{2}))).value.data<float>()[0]));
}

TEST(Cosine, RefusesUnequalShapes) {
  TestBench bench;
  const Variable a(random_input(bench.ctx, {{2, 3}}, DType::f32, RngKey{1})), b(random_input(bench.ctx, {{2, 4}}, DType::f32, RngKey{1}));
  expect_error([&] { cosine(bench.ctx, a, b); }, {"[cosine]", "(2, 3)", "(2, 4)"});
}

}  // namespace
}  // namespace ermoe::testing
