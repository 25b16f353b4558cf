#include "ops/attention_mean.h"

#include "ops/attention.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

std::function<Variable(const ExecContext&, Vars)> run(int64_t heads) {
  return [=](const ExecContext& ctx, Vars x) { return attention_mean(ctx, x[0], x[1], heads); };
}
std::vector<OpInput> inputs(int64_t batch, int64_t tokens, int64_t width) {
  return {{.shape = {batch, tokens, 3 * width}}, {.shape = {batch, tokens, width}}};
}

OP_CASES(AttentionMeanOp, {.name = "one_token", .inputs = inputs(2, 1, 3), .run = run(1)},
         {.name = "ragged", .inputs = inputs(3, 17, 21), .run = run(3)},
         {.name = "two_query_blocks", .inputs = inputs(1, 101, 10), .run = run(2)});

#if defined(ERMOE_WITH_CUDA)
TEST(AttentionMean, OnAGpuAgreesAndRepeats) {
  const auto expect_all = [](int64_t tokens, int64_t heads, int64_t dh) {
    const OpCase op{.name = "", .inputs = inputs(2, tokens, heads * dh), .run = run(heads)};
    expect_gpu_matches_cpu(op);
    expect_gpu_bf16_matches_f32(op);
    expect_gpu_adds(op);
    expect_gpu_repeats(op);
  };
  ERMOE_NEEDS_GPU(expect_all(197, 6, 64); expect_all(65, 3, 32); expect_all(70, 2, 66); expect_all(1, 2, 8));
}
#endif

TEST(AttentionMean, MatchesItsDefinition) {
  TestBench bench;
  const int64_t batch = 2, n = 113, heads = 3, dh = 5, width = heads * dh;
  const Tensor x = random_input(bench.ctx, {Shape{batch, n, 3 * width}}, DType::f64, RngKey{1});
  const Tensor tokens = random_input(bench.ctx, {Shape{batch, n, width}}, DType::f64, RngKey{2});
  std::vector<double> expected(static_cast<size_t>(tokens.numel()), 0.0);
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        const double* q = x.data<double>() + (b * n + i) * 3 * width + h * dh;
        std::vector<double> p;
        double total = 0;
        for (int64_t j = 0; j < n; ++j) {
          const double* k = x.data<double>() + (b * n + j) * 3 * width + width + h * dh;
          double s = 0;
          for (int64_t c = 0; c < dh; ++c) s += q[c] * k[c];
          p.push_back(std::exp(s / std::sqrt(static_cast<double>(dh))));
          total += p.back();
        }
        for (int64_t j = 0; j < n; ++j)
          for (int64_t c = 0; c < width; ++c)
            expected[static_cast<size_t>((b * n + i) * width + c)] +=
                p[static_cast<size_t>(j)] / total / heads * tokens.data<double>()[(b * n + j) * width + c];
      }
  const Tensor y = attention_mean(bench.ctx, Variable(x), Variable(tokens), heads).value;
  EXPECT_LE(normalised_error(to_doubles(y), expected), 1e-27);
}

TEST(AttentionMean, OfOneHeadOverItsValuesIsAttention) {
  TestBench bench;
  const Shape shape{2, 19, 8};
  const Tensor x = random_input(bench.ctx, {shape.with(2, 24)}, DType::f64, RngKey{1});
  const Tensor values = bench.ctx.empty(shape, DType::f64);
  for (int64_t r = 0; r < 38; ++r) std::copy_n(x.data<double>() + r * 24 + 16, 8, values.data<double>() + r * 8);
  EXPECT_LE(normalised_error(to_doubles(attention_mean(bench.ctx, Variable(x), Variable(values), 1).value),
                             to_doubles(attention(bench.ctx, Variable(x), 1).value)),
            1e-28);
}

TEST(AttentionMean, GradientsAreTheSameWhereOneIsNotWanted) {
  TestBench bench;
  const auto gradient = [&](size_t kept, size_t frozen) {  // `frozen` == 2: none
    Tape tape;
    const ExecContext ctx = bench.ctx.with_tape(&tape);
    const auto shapes = inputs(2, 9, 12);
    std::vector<Variable> v;
    for (size_t i = 0; i < 2; ++i) {
      const Tensor t = random_input(ctx, shapes[i], DType::f64, RngKey{i});
      v.push_back(i == frozen ? Variable(t) : tape.leaf(t));
    }
    tape.backward(ctx, run(2)(ctx, v), random_input(ctx, shapes[1], DType::f64, RngKey{7}));
    return to_doubles(tape.grad(v[kept]));
  };
  EXPECT_EQ(gradient(0, 1), gradient(0, 2));
  EXPECT_EQ(gradient(1, 0), gradient(1, 2));
}

TEST(AttentionMean, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = inputs(5, 65, 24), .run = run(2)});
}

TEST(AttentionMean, NeverHoldsAllScores) {
  TestBench bench;
  const int64_t tokens = 2000, heads = 2;
  run_op(bench, {.name = "", .inputs = inputs(2, tokens, 16), .run = run(heads)}, DType::f32);
  EXPECT_LT(bench.allocator.stats().peak, static_cast<size_t>(2 * heads * tokens * tokens) * sizeof(float) / 4);
}

TEST(AttentionMean, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape) { return Variable(Tensor::zeros(bench.allocator, shape, DType::f32)); };
  expect_error([&] { attention_mean(bench.ctx, zeros({2, 5, 12}), zeros({2, 5, 12}), 2); }, {"[attention_mean]", "(2, 5, 12)"});
  expect_error([&] { attention_mean(bench.ctx, zeros({2, 5, 12}), zeros({2, 5, 4}), 3); }, {"[attention_mean]", "D=4", "3 heads"});
  expect_error([&] { attention_mean(bench.ctx, zeros({2, 5, 12}), Variable(), 2); }, {"[attention_mean]", "(2, 5, 12)"});
}

}  // namespace
}  // namespace ermoe::testing
