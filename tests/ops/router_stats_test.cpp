#include "ops/router_stats.h"

#include "tests/bench.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ermoe::testing {
namespace {

struct Fixture : TestBench {
  int64_t N = 700, D = 3, E = 4, K = 2;
  RouterStatsDims dims{.N = 700, .D = 3, .E = 4, .K = 2};
  Tensor x = random_input(ctx, {Shape{700, 3}}, DType::f64, RngKey{1});
  Tensor c = random_input(ctx, {Shape{700, 3}}, DType::f64, RngKey{2});
  Tensor scores = make_scores();
  RouterStats stats{zeros(3), zeros(3), zeros(4), zeros(4), zeros(RouterStatsDims::bins), zeros(1)};

  Tensor zeros(int64_t n) { return Tensor::zeros(allocator, {n}, DType::f64); }
  Tensor make_scores() {
    Tensor s = random_input(ctx, {Shape{700, 4}}, DType::f64, RngKey{3});
    for (double& v : s.span<double>()) v = std::tanh(v);
    return s;
  }
};

TEST(RouterStats, FirstUpdateReplacesLaterOnesBlend) {
  Fixture f;
  const Tensor sums = make_router_sums(f.ctx, f.dims);
  accumulate_router_stats(f.ctx, f.x, f.c, f.scores, {}, f.K, sums);
  update_router_stats(f.ctx, f.dims, sums, 0.05, f.stats);
  double mean = 0, var = 0;
  for (int64_t n = 0; n < f.N; ++n) mean += f.scores.data<double>()[n * f.E + 1] / static_cast<double>(f.N);
  for (int64_t n = 0; n < f.N; ++n) var += std::pow(f.scores.data<double>()[n * f.E + 1] - mean, 2) / static_cast<double>(f.N);
  EXPECT_NEAR(f.stats.score_mean.data<double>()[1], mean, 1e-12);
  EXPECT_NEAR(f.stats.score_var.data<double>()[1], var, 1e-12);

  const double before = f.stats.mean_x.data<double>()[0];
  for (double& v : f.x.span<double>()) v += 2;
  const Tensor again = make_router_sums(f.ctx, f.dims);
  accumulate_router_stats(f.ctx, f.x, f.c, f.scores, {}, f.K, again);
  update_router_stats(f.ctx, f.dims, again, 0.05, f.stats);
  EXPECT_NEAR(f.stats.mean_x.data<double>()[0], before + 0.05 * 2, 1e-12);
  EXPECT_EQ(*f.stats.updates.data<double>(), 2);
}

TEST(RouterStats, MicroBatchesAddUpToTheBatch) {
  Fixture f;
  const Tensor whole = make_router_sums(f.ctx, f.dims), parts = make_router_sums(f.ctx, f.dims);
  accumulate_router_stats(f.ctx, f.x, f.c, f.scores, {}, f.K, whole);
  for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, 256}, {256, 700}})
    accumulate_router_stats(f.ctx, f.x.slice(begin, end), f.c.slice(begin, end), f.scores.slice(begin, end), {}, f.K, parts);
  for (int64_t i = 0; i < f.dims.size(); ++i) EXPECT_NEAR(parts.data<double>()[i], whole.data<double>()[i], 1e-10);
}

TEST(RouterStats, MaskedPairsAreLeftOut) {
  Fixture f;
  Tensor allow = f.ctx.empty({f.N, f.E}, DType::u8);
  for (int64_t i = 0; i < allow.numel(); ++i) allow.data<uint8_t>()[i] = i % f.E != 2;  // nobody may go to expert 2
  const Tensor sums = make_router_sums(f.ctx, f.dims);
  accumulate_router_stats(f.ctx, f.x, f.c, f.scores, allow, f.K, sums);
  update_router_stats(f.ctx, f.dims, sums, 0.05, f.stats);
  EXPECT_EQ(f.stats.score_mean.data<double>()[2], 0);
  EXPECT_NE(f.stats.score_mean.data<double>()[3], 0);
}

TEST(RouterStats, QuantileIsThatOfTheBestScores) {
  Fixture f;
  const Tensor sums = make_router_sums(f.ctx, f.dims);
  accumulate_router_stats(f.ctx, f.x, f.c, f.scores, {}, f.K, sums);
  update_router_stats(f.ctx, f.dims, sums, 0.05, f.stats);
  std::vector<double> best;
  for (int64_t n = 0; n < f.N; ++n) {
    std::vector<double> row(f.scores.data<double>() + n * f.E, f.scores.data<double>() + (n + 1) * f.E);
    std::ranges::sort(row, std::greater<>());
    best.insert(best.end(), row.begin(), row.begin() + f.K);
  }
  std::ranges::sort(best);
  for (double q : {0.05, 0.3, 0.9}) {
    const double exact = best[static_cast<size_t>(q * static_cast<double>(best.size()))];
    EXPECT_NEAR(*histogram_quantile(f.ctx, f.stats.histogram, q).data<double>(), exact, 0.01) << q;
  }
}

TEST(RouterStats, CalibratedScoresHaveUnitSpread) {
  Fixture f;
  const Tensor sums = make_router_sums(f.ctx, f.dims);
  accumulate_router_stats(f.ctx, f.x, f.c, f.scores, {}, f.K, sums);
  update_router_stats(f.ctx, f.dims, sums, 0.05, f.stats);
  const Tensor order = calibrate_scores(f.ctx, f.scores, f.stats);
  double mean = 0, square = 0;
  for (int64_t n = 0; n < f.N; ++n) {
    mean += order.data<double>()[n * f.E] / static_cast<double>(f.N);
    square += std::pow(order.data<double>()[n * f.E], 2) / static_cast<double>(f.N);
  }
  EXPECT_NEAR(mean, 0, 1e-9);
  EXPECT_NEAR(square, 1, 1e-4);
}

}  // namespace
}  // namespace ermoe::testing
