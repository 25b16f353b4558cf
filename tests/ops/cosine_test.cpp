#include "ops/cosine.h"

#include "ops/gelu.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return cosine(ctx, x[0], x[1]); }

Tensor shift_of(const ExecContext& ctx, const Variable& v, uint64_t key) {
  return random_input(ctx, {{v.shape()[-2], v.shape()[-1]}}, master_of(v.dtype()), RngKey{key});
}
Variable run_shifted(const ExecContext& ctx, Vars x) { return cosine(ctx, x[0], x[1], shift_of(ctx, x[0], 1), shift_of(ctx, x[1], 2)); }
Variable run_half_shifted(const ExecContext& ctx, Vars x) { return cosine(ctx, x[0], x[1], {}, shift_of(ctx, x[1], 2)); }

OP_CASES(CosineOp, {.name = "pair", .inputs = {{.shape = {1, 2}}, {.shape = {1, 2}}}, .run = run},
         {.name = "ragged", .inputs = {{.shape = {5, 3, 7}}, {.shape = {5, 3, 7}}}, .run = run},
         {.name = "packs", .inputs = {{.shape = {13, 8, 48}}, {.shape = {13, 8, 48}}}, .run = run},
         {.name = "no_pair", .inputs = {{.shape = {0, 48}}, {.shape = {0, 48}}}, .run = run},
         {.name = "many", .inputs = {{.shape = {67, 31}}, {.shape = {67, 31}}}, .run = run},
         {.name = "shifted", .inputs = {{.shape = {6, 3, 7}}, {.shape = {6, 3, 7}}}, .run = run_shifted},
         {.name = "half_shifted", .inputs = {{.shape = {13, 5, 48}}, {.shape = {13, 5, 48}}}, .run = run_half_shifted},
         {.name = "one_input",
          .inputs = {{.shape = {6, 3, 8}}},
          .run = [](const ExecContext& ctx, Vars x) { return cosine(ctx, x[0], x[0], {}, shift_of(ctx, x[0], 2)); }},
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

TEST(Cosine, AShiftIsAddedToItsRowOfEveryGroup) {
  TestBench bench;
  const Tensor a = random_input(bench.ctx, {{4, 3, 5}}, DType::f64, RngKey{1}),
               b = random_input(bench.ctx, {{4, 3, 5}}, DType::f64, RngKey{2});
  const Tensor shift = random_input(bench.ctx, {{3, 5}}, DType::f64, RngKey{3}), moved = a.clone();
  for (int64_t i = 0; i < moved.numel(); ++i) moved.data<double>()[i] += shift.data<double>()[i % 15];
  EXPECT_EQ(to_doubles(cosine(bench.ctx, Variable(a), Variable(b), shift).value),
            to_doubles(cosine(bench.ctx, Variable(moved), Variable(b)).value));
  EXPECT_EQ(to_doubles(cosine(bench.ctx, Variable(b), Variable(a), {}, shift).value),
            to_doubles(cosine(bench.ctx, Variable(b), Variable(moved)).value));
}

TEST(Cosine, RefusesUnequalShapes) {
  TestBench bench;
  const Variable a(random_input(bench.ctx, {{2, 3}}, DType::f32, RngKey{1})), b(random_input(bench.ctx, {{2, 4}}, DType::f32, RngKey{1}));
  expect_error([&] { cosine(bench.ctx, a, b); }, {"[cosine]", "(2, 3)", "(2, 4)"});
  expect_error([&] { cosine(bench.ctx, a, a, b.value); }, {"[cosine]", "shift", "(2, 3)", "(2, 4)"});
}

}  // namespace
}  // namespace ermoe::testing
