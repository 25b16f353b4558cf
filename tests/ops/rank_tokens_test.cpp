#include "ops/rank_tokens.h"

#include "ops/routing_plan.h"
#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ermoe::testing {
namespace {

TEST(RankTokens, TheLargestWeightOfATokenDecides) {
  TestBench bench;
  const std::vector<float> weights = {0.3f, 0.2f, 0.1f, 0.6f, 0.5f, 0.5f, 0.0f, 0.1f};
  EXPECT_EQ(to_vector<int32_t>(rank_tokens(bench.ctx, Tensor::from<float>(bench.allocator, {4, 2}, weights))),
            (std::vector<int32_t>{1, 2, 0, 3}));
}

TEST(RankTokens, AmongEqualsTheLowerComesFirst) {
  TestBench bench;
  const std::vector<double> weights = {0.5, 0.7, 0.5, 0.7, -0.0, 0.0};
  EXPECT_EQ(to_vector<int32_t>(rank_tokens(bench.ctx, Tensor::from<double>(bench.allocator, {6, 1}, weights))),
            (std::vector<int32_t>{1, 3, 0, 2, 4, 5}));
  EXPECT_EQ(rank_tokens(bench.ctx, bench.ctx.empty({0, 2}, DType::f32)).shape(), Shape({0}));
  std::vector<float> coarse(500);
  for (size_t i = 0; i < coarse.size(); ++i) coarse[i] = static_cast<float>(i * i % 7);
  const auto order = to_vector<int32_t>(rank_tokens(bench.ctx, Tensor::from<float>(bench.allocator, {500, 1}, coarse)));
  for (size_t i = 1; i < order.size(); ++i) {
    const float before = coarse[static_cast<size_t>(order[i - 1])], own = coarse[static_cast<size_t>(order[i])];
    EXPECT_TRUE(before > own || (before == own && order[i - 1] < order[i])) << "place " << i;
  }
}

TEST(RankTokens, ANanIsNobodysPriority) {
  TestBench bench;
  const std::vector<float> weights = {NAN, NAN, NAN, 0.2f, 0.4f, NAN, -INFINITY, 0.1f};
  EXPECT_EQ(to_vector<int32_t>(rank_tokens(bench.ctx, Tensor::from<float>(bench.allocator, {4, 2}, weights))),
            (std::vector<int32_t>{2, 1, 3, 0}));
}

TEST(RankTokens, WrongInputsAreRefused) {
  TestBench bench;
  expect_error([&] { rank_tokens(bench.ctx, bench.ctx.empty({4}, DType::f32)); }, {"[rank_tokens]", "(4)"});
  expect_error([&] { rank_tokens(bench.ctx, bench.ctx.empty({4, 0}, DType::f32)); }, {"[rank_tokens]", "(4, 0)"});
}

TEST(LimitCapacity, TakesTokensInTheOrderThatIsGiven) {
  TestBench bench;
  const std::vector<int32_t> given = {0, 1, 0, 1, 0, 2, 1, 0}, claims = {2, 3, 0, 1};
  const Tensor ids = Tensor::from<int32_t>(bench.allocator, {4, 2}, given), order = Tensor::from<int32_t>(bench.allocator, {4}, claims);
  limit_capacity(bench.ctx, ids, 3, 2, order);
  // First choices: token 2 on 0, 3 on 1, 0 on 0, and 1 finds 0 full. Then second ones: 2 on 2, 3 finds 0 full, 0 on 1, 1 finds 1 full.
  EXPECT_EQ(to_vector<int32_t>(ids), (std::vector<int32_t>{0, 1, -1, -1, 0, 2, 1, -1}));
  expect_error([&] { limit_capacity(bench.ctx, ids, 3, 2, bench.ctx.empty({3}, DType::i32)); }, {"[limit_capacity]", "(3)", "(4, 2)"});
}

#if defined(ERMOE_WITH_CUDA)

/// Weights of few values, so that there are ties, and some that are no numbers.
Tensor coarse_weights(const ExecContext& ctx, int64_t tokens, int64_t slots) {
  const Tensor t = ctx.empty({tokens, slots}, DType::f32);
  for (int64_t i = 0; i < t.numel(); ++i) {
    const auto value = uniform_int(RngKey{31}, static_cast<uint64_t>(i), 97);
    t.data<float>()[i] = value == 0 ? NAN : static_cast<float>(value) / 64 - 0.5f;
  }
  return t;
}

void expect_gpu_ranks_as_cpu() {
  TestBench cpu;
  GpuBench gpu;
  for (const auto [tokens, slots] : {std::pair<int64_t, int64_t>{1, 1}, {0, 2}, {255, 2}, {256, 1}, {257, 3}, {9001, 2}}) {
    const Tensor weights = coarse_weights(cpu.ctx, tokens, slots);
    const Tensor want = rank_tokens(cpu.ctx, weights), got = rank_tokens(gpu.ctx, weights.to(gpu.allocator));
    EXPECT_EQ(to_vector<int32_t>(got), to_vector<int32_t>(want)) << tokens;
    std::vector<int32_t> ids(static_cast<size_t>(tokens * slots));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(uniform_int(RngKey{32}, i, 5)) - 1;
    const Tensor here = Tensor::from<int32_t>(cpu.allocator, {tokens, slots}, ids), there = here.to(gpu.allocator);
    limit_capacity(cpu.ctx, here, 4, tokens / 6, want);
    limit_capacity(gpu.ctx, there, 4, tokens / 6, got);
    EXPECT_EQ(to_vector<int32_t>(there), to_vector<int32_t>(here)) << tokens;
  }
}

TEST(RankTokens, OnAGpuIsTheSame) { ERMOE_NEEDS_GPU(expect_gpu_ranks_as_cpu()); }

#endif

}  // namespace
}  // namespace ermoe::testing
