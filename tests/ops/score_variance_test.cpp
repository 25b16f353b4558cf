#include "ops/score_variance.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/padded.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return score_variance_loss(ctx, x[0]); }
Variable run_padded(const ExecContext& ctx, Vars x) { return score_variance_loss(ctx, x[0], some_weights(ctx, x[0], x[0].shape()[0])); }
/// Scores are f32 also where the model computes in bf16.
OpInput scores_of(int64_t rows, int64_t experts) { return {.shape = {rows, experts}, .precision = OpInput::Precision::master}; }

OP_CASES(ScoreVarianceOp, {.name = "ragged", .inputs = {scores_of(37, 5)}, .run = run},
         {.name = "one_token", .inputs = {scores_of(1, 3)}, .run = run}, {.name = "one_expert", .inputs = {scores_of(41, 1)}, .run = run},
         {.name = "many_tokens", .inputs = {scores_of(1203, 8)}, .run = run},
         {.name = "padded", .inputs = {scores_of(37, 5)}, .run = run_padded},
         {.name = "many_padded", .inputs = {scores_of(1203, 8)}, .run = run_padded},
         {.name = "many_experts", .inputs = {scores_of(19, 300)}, .run = run});

TEST(ScoreVariance, IsMinusTheSumOfTheColumnsVariances) {
  TestBench bench;
  const Tensor s = Tensor::from<double>(bench.allocator, {2, 2}, std::vector<double>{0.0, 5.0, 4.0, 5.5});
  EXPECT_DOUBLE_EQ(to_doubles(score_variance_loss(bench.ctx, Variable(s)).value)[0], -(4.0 + 0.0625));
}

TEST(ScoreVariance, PaddingSaysNothing) {
  expect_padding_says_nothing<double>({30}, 5, [](const ExecContext& ctx, const Variable& x, const auto&, const Tensor& weights) {
    return score_variance_loss(ctx, x, weights);
  });
}

TEST(ScoreVariance, RefusesWhatHasNoRows) {
  TestBench bench;
  expect_error([&] { score_variance_loss(bench.ctx, Variable(bench.ctx.empty({0, 3}, DType::f32))); }, {"[score_variance] wants (N, E)"});
}

}  // namespace
}  // namespace ermoe::testing
