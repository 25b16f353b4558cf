#include "ops/router_stats.h"

#include "tests/gpu_bench.h"

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

TEST(RouterStats, PaddingDoesNotCount) {
  Fixture padded, f;
  Tensor allow = padded.ctx.empty({padded.N, padded.E}, DType::u8);
  for (int64_t i = 0; i < allow.numel(); ++i) allow.data<uint8_t>()[i] = i / padded.E < 300;  // the others are padding
  padded.dims.closed = ClosedTokens::leave_out;
  const Tensor with = make_router_sums(padded.ctx, padded.dims), without = make_router_sums(f.ctx, f.dims);
  accumulate_router_stats(padded.ctx, padded.x, padded.c, padded.scores, allow, padded.K, with, ClosedTokens::leave_out);
  accumulate_router_stats(f.ctx, f.x.slice(0, 300), f.c.slice(0, 300), f.scores.slice(0, 300), {}, f.K, without);
  update_router_stats(padded.ctx, padded.dims, with, 0.05, padded.stats);
  update_router_stats(f.ctx, f.dims, without, 0.05, f.stats);
  for (auto member : {&RouterStats::mean_x, &RouterStats::mean_c, &RouterStats::score_mean, &RouterStats::score_var,
                      &RouterStats::histogram, &RouterStats::updates}) {
    const auto got = to_doubles(padded.stats.*member), want = to_doubles(f.stats.*member);
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-14);
  }
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

TEST(RouterStats, BeforeTheFirstUpdateScoresAreTheirOwnOrderAndNothingIsBelowTheThreshold) {
  Fixture f;
  EXPECT_EQ(to_doubles(calibrate_scores(f.ctx, f.scores, f.stats)), to_doubles(f.scores));
  EXPECT_EQ(item<double>(histogram_quantile(f.ctx, f.stats.histogram, 0.1)), -INFINITY);
}

#if defined(ERMOE_WITH_CUDA)

struct StatsCase {
  RouterStatsDims dims;
  DType dtype = DType::f32;
  bool with_context = true, with_mask = false, with_nan = false;
};

/// The inputs of one batch on one device, and what comes of them.
struct StatsRun {
  template <typename Bench>
  StatsRun(Bench& bench, const StatsCase& c) {
    const auto rounded = [&](uint64_t key) {  // what bf16 can hold, wherever it is computed
      const Tensor narrow = random_input(bench.ctx, {{c.dims.N, c.dims.D}}, DType::bf16, RngKey{key});
      if (bench.ctx.device.is_cuda() && c.dtype == DType::bf16) return narrow;
      const Tensor wide = bench.ctx.empty(narrow.shape(), DType::f32);
      convert(narrow, wide);
      return wide;
    };
    const Tensor x = rounded(1), context = c.with_context ? rounded(2) : Tensor();
    std::vector<float> s = to_vector<float>(random_input(bench.ctx, {{c.dims.N, c.dims.E}}, DType::f32, RngKey{3}));
    for (float& v : s) v = std::tanh(v);
    if (c.with_nan) s[s.size() / 2] = std::nanf("");
    std::vector<uint8_t> open(s.size());
    const size_t run = c.dims.closed == ClosedTokens::leave_out ? static_cast<size_t>(c.dims.E) : 1;
    for (size_t i = 0; i < open.size(); ++i) open[i] = uniform_int(RngKey{4}, i / run, 3) != 0;
    scores = Tensor::from<float>(*bench.ctx.allocator, {c.dims.N, c.dims.E}, s);
    const Tensor allow = c.with_mask ? Tensor::from<uint8_t>(*bench.ctx.allocator, {c.dims.N, c.dims.E}, open) : Tensor();
    const auto zeros = [&](int64_t n) { return Tensor::zeros(*bench.ctx.allocator, {n}, DType::f32); };
    stats = {zeros(c.dims.D), zeros(c.dims.D), zeros(c.dims.E), zeros(c.dims.E), zeros(RouterStatsDims::bins), zeros(1)};
    for (int step = 0; step < 2; ++step) {
      const Tensor sum = make_router_sums(bench.ctx, c.dims);
      accumulate_router_stats(bench.ctx, x, context, scores, allow, c.dims.K, sum, c.dims.closed);
      accumulate_router_stats(bench.ctx, x, context, scores, allow, c.dims.K, sum, c.dims.closed);
      update_router_stats(bench.ctx, c.dims, sum, 0.05, stats);
      sums = to_vector<double>(sum);
    }
    for (double q : {0.0, 0.1, 0.5, 1.0}) quantiles.push_back(to_doubles(histogram_quantile(bench.ctx, stats.histogram, q))[0]);
  }

  Tensor scores;
  RouterStats stats;
  std::vector<double> sums, quantiles;
};

std::vector<double> part(const std::vector<double>& all, int64_t begin, int64_t end) { return {all.begin() + begin, all.begin() + end}; }

void expect_gpu_counts_as_cpu(const StatsCase& c) {
  TestBench cpu;
  GpuBench gpu, again;
  const StatsRun want(cpu, c), got(gpu, c);
  EXPECT_EQ(StatsRun(again, c).sums, got.sums);
  EXPECT_EQ(got.sums[0], want.sums[0]);
  const RouterStatsDims& d = c.dims;
  for (auto [begin, end] : {std::pair{d.sum_x(), d.sum_c()}, {d.sum_c(), d.sum_s()}, {d.sum_s(), d.sum_s2()}, {d.sum_s2(), d.pairs()}})
    EXPECT_LE(normalised_error(part(got.sums, begin, end), part(want.sums, begin, end)), 1e-10) << begin;
  EXPECT_EQ(part(got.sums, d.pairs(), d.size()), part(want.sums, d.pairs(), d.size()));
  for (auto member : {&RouterStats::mean_x, &RouterStats::mean_c, &RouterStats::score_mean, &RouterStats::score_var,
                      &RouterStats::histogram, &RouterStats::updates})
    EXPECT_LE(normalised_error(to_doubles(got.stats.*member), to_doubles(want.stats.*member)), 1e-10);
  EXPECT_LE(normalised_error(got.quantiles, want.quantiles), 1e-10);
}

void expect_gpu_statistics() {
  for (DType dtype : {DType::f32, DType::bf16}) {
    expect_gpu_counts_as_cpu({.dims = {.N = 2999, .D = 384, .E = 8, .K = 2}, .dtype = dtype});
    expect_gpu_counts_as_cpu({.dims = {.N = 700, .D = 7, .E = 3, .K = 3}, .dtype = dtype, .with_context = false, .with_mask = true});
    expect_gpu_counts_as_cpu({.dims = {.N = 513, .D = 2056, .E = 40, .K = 2}, .dtype = dtype, .with_nan = true});
    expect_gpu_counts_as_cpu({.dims = {.N = 33, .D = 8, .E = 300, .K = 4}, .dtype = dtype, .with_mask = true});
    expect_gpu_counts_as_cpu(
        {.dims = {.N = 2999, .D = 384, .E = 8, .K = 2, .closed = ClosedTokens::leave_out}, .dtype = dtype, .with_mask = true});
    expect_gpu_counts_as_cpu({.dims = {.N = 1, .D = 1, .E = 1, .K = 1}, .dtype = dtype});
  }
}

/// The same running values on both devices give the same order, bit for bit: selection depends on it.
void expect_gpu_calibrates_as_cpu() {
  TestBench cpu;
  GpuBench gpu;
  for (bool updated : {false, true}) {
    StatsRun run(cpu, {.dims = {.N = 2999, .D = 8, .E = 8, .K = 2}});
    if (!updated) fill(run.stats.updates, 0);
    RouterStats there = run.stats;
    for (Tensor* t : {&there.mean_x, &there.mean_c, &there.score_mean, &there.score_var, &there.histogram, &there.updates})
      *t = t->to(gpu.allocator);
    EXPECT_EQ(to_vector<float>(calibrate_scores(gpu.ctx, run.scores.to(gpu.allocator), there)),
              to_vector<float>(calibrate_scores(cpu.ctx, run.scores, run.stats)));
  }
}

void expect_gpu_knows_an_empty_histogram() {
  GpuBench gpu;
  const Tensor empty = Tensor::zeros(gpu.allocator, {RouterStatsDims::bins}, DType::f32);
  EXPECT_EQ(item<float>(histogram_quantile(gpu.ctx, empty, 0.1)), -INFINITY);
}

TEST(RouterStatsOnGpu, AreTheCpus) { ERMOE_NEEDS_GPU(expect_gpu_statistics()); }
TEST(RouterStatsOnGpu, CalibrateToTheSameBits) { ERMOE_NEEDS_GPU(expect_gpu_calibrates_as_cpu()); }
TEST(RouterStatsOnGpu, AnEmptyHistogramHasNoThreshold) { ERMOE_NEEDS_GPU(expect_gpu_knows_an_empty_histogram()); }

#endif

}  // namespace
}  // namespace ermoe::testing
