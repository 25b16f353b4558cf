#include "ops/choose_tokens.h"

#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

namespace ermoe::testing {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();

struct Trial {
  ChoiceDims dims;
  Tensor scores, allow;
};

/// Scores in steps of a quarter where `coarse`, so that ties are common; one in eight is no number where `with_nonfinite`.
template <typename T>
Tensor scores_of(const ExecContext& ctx, const ChoiceDims& dims, RngKey key, bool coarse, bool with_nonfinite) {
  Tensor t = ctx.empty({dims.tokens, dims.experts}, DTypeOf<T>::value);
  constexpr T specials[] = {nan, infinity, -infinity, T(-0.0)};
  for (int64_t i = 0; i < t.numel(); ++i) {
    const auto index = static_cast<uint64_t>(i);
    t.data<T>()[i] = coarse ? static_cast<T>(uniform_int(key, index, 9)) / 4 - 1 : static_cast<T>(normal(key, index));
    if (with_nonfinite && uniform_int(key.fold(1), index, 8) == 0) t.data<T>()[i] = specials[uniform_int(key.fold(2), index, 4)];
  }
  return t;
}

template <typename T>
Trial random_trial(const ExecContext& ctx, uint64_t number, bool with_nonfinite) {
  const RngKey key = RngKey{77}.fold(number);
  const auto draw = [&](uint64_t index, int64_t n) { return static_cast<int64_t>(uniform_int(key, index, static_cast<uint64_t>(n))); };
  Trial t;
  t.dims.tokens = draw(0, 40);
  t.dims.experts = 1 + draw(1, 9);
  t.dims.group = 1 + draw(2, 45);
  t.dims.each = 1 + draw(3, t.dims.experts);
  t.scores = scores_of<T>(ctx, t.dims, key.fold(1), draw(4, 2) == 0, with_nonfinite);
  if (draw(5, 2) == 0) {
    t.allow = ctx.empty({t.dims.tokens, t.dims.experts}, DType::u8);
    for (int64_t i = 0; i < t.allow.numel(); ++i) t.allow.data<uint8_t>()[i] = uniform_int(key.fold(3), static_cast<uint64_t>(i), 3) != 0;
  }
  return t;
}

/// Taken or not, by how many tokens of its group stand before each.
template <typename T>
std::vector<uint8_t> choose_naively(const Trial& t) {
  const auto& [N, E, group, c] = t.dims;
  std::vector<uint8_t> taken;
  const auto score = [&](int64_t n, int64_t e) { return t.scores.data<T>()[n * t.dims.experts + e]; };
  const auto open = [&](int64_t n, int64_t e) {
    return std::isfinite(score(n, e)) && (!t.allow.defined() || t.allow.data<uint8_t>()[n * t.dims.experts + e] != 0);
  };
  for (int64_t n = 0; n < N; ++n)
    for (int64_t e = 0; e < E; ++e) {
      const int64_t first = n / group * group, size = std::min(group, N - first);
      int64_t before = 0;
      for (int64_t m = first; m < first + size; ++m)
        before += open(m, e) && (score(m, e) > score(n, e) || (score(m, e) == score(n, e) && m < n));
      const auto wanted = static_cast<int64_t>(std::ceil(static_cast<double>(c * size) / static_cast<double>(E)));
      taken.push_back(open(n, e) && before < wanted ? 1 : 0);
    }
  return taken;
}

template <typename T>
void expect_as_the_oracle(uint64_t trials, bool with_nonfinite) {
  for (uint64_t number = 0; number < trials; ++number) {
    TestBench bench;
    const Trial t = random_trial<T>(bench.ctx, number, with_nonfinite);
    const auto taken = to_vector<uint8_t>(choose_tokens(bench.ctx, t.dims, t.scores, t.allow));
    ASSERT_EQ(taken, choose_naively<T>(t)) << "trial " << number;
    EXPECT_LE(std::accumulate(taken.begin(), taken.end(), int64_t{0}), t.dims.rows());
  }
}

TEST(ChooseTokens, FollowsTheRulesInFloat) { expect_as_the_oracle<float>(2000, false); }
TEST(ChooseTokens, FollowsTheRulesInDouble) { expect_as_the_oracle<double>(1000, false); }
TEST(ChooseTokens, NeverTakesWhatIsNotANumber) { expect_as_the_oracle<float>(2000, true); }

TEST(ChooseTokens, TiesGoToTheLowerToken) {
  TestBench bench;
  const Tensor scores = Tensor::from<float>(bench.allocator, {5, 1}, std::vector<float>{1, 2, 2, 2, 3});
  // With one expert every token is taken; of two experts each takes half, rounded up.
  EXPECT_EQ(to_vector<uint8_t>(choose_tokens(bench.ctx, {.tokens = 5, .experts = 1, .group = 5, .each = 1}, scores, {})),
            std::vector<uint8_t>(5, 1));
  const Tensor pairs = Tensor::from<float>(bench.allocator, {5, 2}, std::vector<float>{1, 0, 2, 0, 2, 0, 2, 0, 3, 0});
  const std::vector<uint8_t> expected = {0, 1, 1, 1, 1, 1, 0, 0, 1, 0};
  EXPECT_EQ(to_vector<uint8_t>(choose_tokens(bench.ctx, {.tokens = 5, .experts = 2, .group = 5, .each = 1}, pairs, {})), expected);
}

TEST(ChooseTokens, MoreExpertsThanTokensTakeOneEach) {
  const ChoiceDims dims{.tokens = 1, .experts = 6, .group = 1, .each = 2};
  EXPECT_EQ(dims.rows(), 6);
  TestBench bench;
  const Tensor scores = random_input(bench.ctx, {{1, 6}}, DType::f32, RngKey{1});
  EXPECT_EQ(to_vector<uint8_t>(choose_tokens(bench.ctx, dims, scores, {})), std::vector<uint8_t>(6, 1));
}

TEST(ChooseTokens, RowsAreCountedGroupByGroup) {
  EXPECT_EQ((ChoiceDims{.tokens = 20, .experts = 4, .group = 20, .each = 2}.rows()), 40);
  EXPECT_EQ((ChoiceDims{.tokens = 20, .experts = 4, .group = 5, .each = 2}.rows()), 4 * 4 * 3);  // 2.5 tokens, rounded up
  EXPECT_EQ((ChoiceDims{.tokens = 13, .experts = 4, .group = 5, .each = 2}.rows()), 4 * (3 + 3 + 2));
  EXPECT_EQ((ChoiceDims{.tokens = 0, .experts = 4, .group = 5, .each = 2}.rows()), 0);
}

TEST(ChooseTokens, RefusesWhatDoesNotFit) {
  TestBench bench;
  const Tensor scores = random_input(bench.ctx, {{3, 4}}, DType::f32, RngKey{1});
  const ChoiceDims fits{.tokens = 3, .experts = 4, .group = 3, .each = 2};
  const auto refused = [&](auto change, const Tensor& allow, std::initializer_list<const char*> parts) {
    ChoiceDims dims = fits;
    change(dims);
    expect_error([&] { choose_tokens(bench.ctx, dims, scores, allow); }, parts);
  };
  refused([](ChoiceDims& d) { d.tokens = 5; }, {}, {"[choose_tokens]", "(3, 4)", "5 tokens"});
  refused([](ChoiceDims& d) { d.each = 5; }, {}, {"[choose_tokens]", "5 experts a token"});
  refused([](ChoiceDims& d) { d.group = 0; }, {}, {"[choose_tokens]", "groups of 0"});
  refused([](ChoiceDims&) {}, bench.ctx.empty({3, 3}, DType::u8), {"[choose_tokens]", "(3, 3)", "(3, 4)"});
}

#if defined(ERMOE_WITH_CUDA)

void expect_gpu_chooses_as_cpu(TestBench& cpu, const Trial& t) {
  GpuBench gpu;
  const auto there = [&](const Tensor& of) { return of.defined() ? of.to(gpu.allocator) : of; };
  ASSERT_EQ(to_vector<uint8_t>(choose_tokens(gpu.ctx, t.dims, there(t.scores), there(t.allow))),
            to_vector<uint8_t>(choose_tokens(cpu.ctx, t.dims, t.scores, t.allow)));
}

void expect_gpu_follows_the_rules() {
  for (uint64_t number = 0; number < 400; ++number) {
    SCOPED_TRACE(number);
    TestBench cpu;
    expect_gpu_chooses_as_cpu(cpu, random_trial<float>(cpu.ctx, number, number % 2 == 1));
    if (::testing::Test::HasFatalFailure()) return;
  }
}

void expect_gpu_chooses_among_many() {
  for (const ChoiceDims& dims : {ChoiceDims{.tokens = 50433, .experts = 8, .group = 50433, .each = 2},
                                 {.tokens = 16640, .experts = 8, .group = 65, .each = 2},
                                 {.tokens = 4001, .experts = 33, .group = 1500, .each = 3},
                                 {.tokens = 3000, .experts = 1, .group = 1024, .each = 1},
                                 {.tokens = 3, .experts = 300, .group = 2, .each = 4}})
    for (const bool coarse : {false, true}) {
      TestBench cpu;
      expect_gpu_chooses_as_cpu(cpu, {dims, scores_of<float>(cpu.ctx, dims, RngKey{5}, coarse, !coarse), {}});
    }
}

TEST(ChooseTokensOnGpu, FollowsTheRules) { ERMOE_NEEDS_GPU(expect_gpu_follows_the_rules()); }
TEST(ChooseTokensOnGpu, AmongManyTokensDoesAsTheCpu) { ERMOE_NEEDS_GPU(expect_gpu_chooses_among_many()); }

#endif

}  // namespace
}  // namespace ermoe::testing
