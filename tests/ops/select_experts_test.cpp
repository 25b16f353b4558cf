#include "ops/select_experts.h"

#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

namespace ermoe::testing {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

struct TokenChoice {
  std::vector<int32_t> ids;
  std::vector<uint8_t> fallback;
};

/// The rules of `select_experts` for token n, by sorting lists.
template <typename T>
TokenChoice choose_naively(const SelectArgs& a, int64_t n) {
  const int64_t experts = a.scores.shape()[1];
  const T* s = a.scores.data<T>() + n * experts;
  const T* order = a.order.defined() ? a.order.data<T>() + n * experts : s;
  std::vector<int32_t> qualified, others;
  for (int64_t e = 0; e < experts; ++e) {
    const bool allowed = !a.allow.defined() || a.allow.data<uint8_t>()[n * experts + e] != 0;
    if (!allowed || !std::isfinite(s[e]) || !std::isfinite(order[e])) continue;
    (!a.threshold.defined() || s[e] > a.threshold.data<T>()[0] ? qualified : others).push_back(static_cast<int32_t>(e));
  }
  const auto better = [&](int32_t x, int32_t y) { return order[x] != order[y] ? order[x] > order[y] : x < y; };
  std::sort(qualified.begin(), qualified.end(), better);
  std::sort(others.begin(), others.end(), better);
  std::vector<int32_t> free_ids;
  for (int64_t j = 0; j < a.free_experts; ++j) free_ids.push_back(static_cast<int32_t>(experts + (n + j) % a.free_experts));

  TokenChoice choice;
  for (int32_t e : qualified)
    if (std::ssize(choice.ids) < a.slots) choice.ids.push_back(e);
  choice.fallback.assign(choice.ids.size(), 0);
  for (int32_t e : a.free_experts > 0 ? free_ids : others)
    if (std::ssize(choice.ids) < a.slots) choice.ids.push_back(e);
  choice.ids.resize(static_cast<size_t>(a.slots), -1);
  choice.fallback.resize(static_cast<size_t>(a.slots), 1);
  return choice;
}

/// Random scores in steps of a quarter, so that ties and scores equal to the threshold are common.
template <typename T>
Tensor coarse_scores(const ExecContext& ctx, Shape shape, RngKey key, bool with_nonfinite) {
  Tensor t = ctx.empty(shape, DTypeOf<T>::value);
  for (int64_t i = 0; i < t.numel(); ++i) {
    const auto index = static_cast<uint64_t>(i);
    t.data<T>()[i] = static_cast<T>(uniform_int(key, index, 9)) / 4 - 1;
    if (!with_nonfinite) continue;
    const auto special = uniform_int(key.fold(1), index, 12);
    if (special == 0) t.data<T>()[i] = nan;
    if (special == 1) t.data<T>()[i] = infinity;
    if (special == 2) t.data<T>()[i] = -infinity;
  }
  return t;
}

template <typename T>
SelectArgs random_args(const ExecContext& ctx, uint64_t trial, bool with_nonfinite) {
  const RngKey key = RngKey{1234}.fold(trial);
  const auto draw = [&](uint64_t index, uint64_t n) { return static_cast<int64_t>(uniform_int(key, index, n)); };
  const int64_t tokens = 1 + draw(0, 40), experts = 1 + draw(1, 9);
  SelectArgs a;
  a.scores = coarse_scores<T>(ctx, {tokens, experts}, key.fold(1), with_nonfinite);
  if (draw(2, 2) == 0) a.order = coarse_scores<T>(ctx, {tokens, experts}, key.fold(2), with_nonfinite);
  if (draw(3, 2) == 0) {
    a.threshold = ctx.empty({1}, DTypeOf<T>::value);
    a.threshold.data<T>()[0] = static_cast<T>(draw(4, 11)) / 4 - static_cast<T>(1.25);
  }
  if (draw(5, 2) == 0) {
    a.allow = ctx.empty({tokens, experts}, DType::u8);
    for (int64_t i = 0; i < a.allow.numel(); ++i) a.allow.data<uint8_t>()[i] = uniform_int(key.fold(3), static_cast<uint64_t>(i), 3) != 0;
  }
  a.free_experts = draw(6, 4);
  a.slots = 1 + draw(7, static_cast<uint64_t>(experts + a.free_experts));
  return a;
}

template <typename T>
void expect_as_the_oracle(uint64_t trials, bool with_nonfinite) {
  for (uint64_t trial = 0; trial < trials; ++trial) {
    TestBench bench;
    const SelectArgs a = random_args<T>(bench.ctx, trial, with_nonfinite);
    const Selection got = select_experts(bench.ctx, a);
    for (int64_t n = 0; n < a.scores.shape()[0]; ++n) {
      const TokenChoice expected = choose_naively<T>(a, n);
      const auto ids = got.ids.span<int32_t>().subspan(static_cast<size_t>(n * a.slots), static_cast<size_t>(a.slots));
      const auto fallback = got.fallback.span<uint8_t>().subspan(static_cast<size_t>(n * a.slots), static_cast<size_t>(a.slots));
      ASSERT_EQ(std::vector<int32_t>(ids.begin(), ids.end()), expected.ids) << "trial " << trial << " token " << n;
      ASSERT_EQ(std::vector<uint8_t>(fallback.begin(), fallback.end()), expected.fallback) << "trial " << trial << " token " << n;
    }
    bool finite = true;
    for (T s : a.scores.span<T>()) finite &= std::isfinite(s);
    if (a.order.defined())
      for (T s : a.order.span<T>()) finite &= std::isfinite(s);
    ASSERT_EQ(got.nonfinite.data<int32_t>()[0], finite ? 0 : 1) << "trial " << trial;
  }
}

TEST(SelectExperts, FollowsTheRulesInFloat) { expect_as_the_oracle<float>(3000, false); }
TEST(SelectExperts, FollowsTheRulesInDouble) { expect_as_the_oracle<double>(1000, false); }
TEST(SelectExperts, NeverRoutesToWhatIsNotANumber) { expect_as_the_oracle<float>(3000, true); }

Tensor floats(TestBench& bench, Shape shape, std::vector<float> values) { return Tensor::from<float>(bench.allocator, shape, values); }

TEST(SelectExperts, TiesGoToTheLowerId) {
  TestBench bench;
  const Selection got =
      select_experts(bench.ctx, {.scores = floats(bench, {1, 4}, {1, 2, 2, 2}), .order = {}, .slots = 2, .threshold = {}, .allow = {}});
  EXPECT_EQ(got.ids.data<int32_t>()[0], 1);
  EXPECT_EQ(got.ids.data<int32_t>()[1], 2);
}

TEST(SelectExperts, AScoreEqualToTheThresholdDoesNotQualify) {
  TestBench bench;
  SelectArgs a{
      .scores = floats(bench, {1, 2}, {0.5f, 0.75f}), .order = {}, .slots = 2, .threshold = floats(bench, {1}, {0.5f}), .allow = {}};
  a.free_experts = 1;
  const Selection got = select_experts(bench.ctx, a);
  EXPECT_EQ(got.ids.data<int32_t>()[0], 1);
  EXPECT_EQ(got.ids.data<int32_t>()[1], 2);  // the free expert
  EXPECT_EQ(got.fallback.data<uint8_t>()[0], 0);
  EXPECT_EQ(got.fallback.data<uint8_t>()[1], 1);
}

TEST(SelectExperts, FreeExpertsTakeTurns) {
  TestBench bench;
  SelectArgs a{.scores = floats(bench, {4, 1}, {0, 0, 0, 0}), .order = {}, .slots = 2, .threshold = floats(bench, {1}, {1}), .allow = {}};
  a.free_experts = 3;
  const Selection got = select_experts(bench.ctx, a);
  const std::vector<int32_t> expected = {1, 2, 2, 3, 3, 1, 1, 2};
  EXPECT_EQ(std::vector<int32_t>(got.ids.span<int32_t>().begin(), got.ids.span<int32_t>().end()), expected);
}

TEST(SelectExperts, OneScoreThatIsNotANumberSetsTheFlag) {
  TestBench bench;
  const Tensor scores = random_input(bench.ctx, {{500, 20}}, DType::f32, RngKey{1});
  SelectArgs a;
  a.scores = scores;
  EXPECT_EQ(select_experts(bench.ctx, a).nonfinite.data<int32_t>()[0], 0);
  scores.data<float>()[7777] = nan;
  EXPECT_EQ(select_experts(bench.ctx, a).nonfinite.data<int32_t>()[0], 1);
}

TEST(SelectExperts, RefusesWhatDoesNotFit) {
  TestBench bench;
  SelectArgs a;
  a.scores = random_input(bench.ctx, {{3, 4}}, DType::f32, RngKey{1});
  a.slots = 5;
  expect_error([&] { select_experts(bench.ctx, a); }, {"[select_experts]", "5 slots", "4 experts"});
  a.slots = 2;
  a.order = random_input(bench.ctx, {{3, 5}}, DType::f32, RngKey{1});
  expect_error([&] { select_experts(bench.ctx, a); }, {"[select_experts]", "(3, 5)", "(3, 4)"});
  a.order = {};
  a.threshold = random_input(bench.ctx, {{1}}, DType::f64, RngKey{1});
  expect_error([&] { select_experts(bench.ctx, a); }, {"[select_experts]", "f64", "f32"});
}

#if defined(ERMOE_WITH_CUDA)

void expect_gpu_selects_as_cpu(TestBench& cpu, const SelectArgs& args) {
  GpuBench gpu;
  SelectArgs there = args;
  for (Tensor* t : {&there.scores, &there.order, &there.threshold, &there.allow})
    if (t->defined()) *t = t->to(gpu.allocator);
  const Selection got = select_experts(gpu.ctx, there), want = select_experts(cpu.ctx, args);
  ASSERT_EQ(to_vector<int32_t>(got.ids), to_vector<int32_t>(want.ids));
  ASSERT_EQ(to_vector<uint8_t>(got.fallback), to_vector<uint8_t>(want.fallback));
  ASSERT_EQ(item<int32_t>(got.nonfinite), item<int32_t>(want.nonfinite));
}

void expect_gpu_follows_the_rules() {
  for (uint64_t trial = 0; trial < 400; ++trial) {
    SCOPED_TRACE(trial);
    TestBench cpu;
    expect_gpu_selects_as_cpu(cpu, random_args<float>(cpu.ctx, trial, trial % 2 == 1));
    if (::testing::Test::HasFatalFailure()) return;
  }
}

void expect_gpu_selects_many() {
  struct Case {
    int64_t tokens, experts, slots, free_experts;
  };
  for (const Case c : {Case{50433, 8, 2, 0}, {4001, 33, 3, 2}, {1501, 256, 4, 0}, {301, 300, 5, 1}, {7, 1, 1, 0}, {0, 8, 2, 0}}) {
    TestBench cpu;
    SelectArgs a;
    a.scores = coarse_scores<float>(cpu.ctx, {c.tokens, c.experts}, RngKey{5}, false);
    a.order = random_input(cpu.ctx, {{c.tokens, c.experts}}, DType::f32, RngKey{6});
    a.threshold = floats(cpu, {1}, {0.5f});
    a.slots = c.slots;
    a.free_experts = c.free_experts;
    expect_gpu_selects_as_cpu(cpu, a);
  }
}

TEST(SelectExpertsOnGpu, FollowsTheRules) { ERMOE_NEEDS_GPU(expect_gpu_follows_the_rules()); }
TEST(SelectExpertsOnGpu, OfManyTokensAndExpertsDoesAsTheCpu) { ERMOE_NEEDS_GPU(expect_gpu_selects_many()); }

#endif

}  // namespace
}  // namespace ermoe::testing
