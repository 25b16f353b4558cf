// The figures of predicted ages, against NumPy's and SciPy's and against what is known by construction.
#include "models/regression_metrics.h"

#include "core/error.h"
#include "core/rng.h"
#include "tests/models/regression_golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace ermoe {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// The last few bits depend on the order of sums.
void expect_close(double found, double wanted) { EXPECT_NEAR(found, wanted, 1e-12 * std::max(1.0, std::abs(wanted))); }

double golden_mean(const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size()); }

struct Wanted {
  double mae, mae_error, low, high, rmse, r, r2, gap, gap_age_r;
};

void expect_metrics(const RegressionMetrics& m, const Wanted& wanted) {
  expect_close(m.mae, wanted.mae);
  expect_close(m.mae_error.value(), wanted.mae_error);
  expect_close(m.rmse, wanted.rmse);
  expect_close(m.r.value(), wanted.r);
  expect_close(m.r2.value(), wanted.r2);
  expect_close(m.mean_gap, wanted.gap);
  expect_close(m.gap_age_r.value(), wanted.gap_age_r);
  // Two generators' draws: 50,000 replicates give the 2.5th percentile to about 0.012 standard errors.
  EXPECT_NEAR(m.mae_interval.low, wanted.low, 0.06 * wanted.mae_error);
  EXPECT_NEAR(m.mae_interval.high, wanted.high, 0.06 * wanted.mae_error);
}

constexpr BootstrapOptions kMany{.seed = 1, .replicates = 50'000};

TEST(RegressionMetrics, AgreeWithNumPy) {
  using namespace golden;
  const RegressionMetrics m = regression_metrics(age, predicted, kMany);
  EXPECT_EQ(m.count, 30);
  expect_metrics(m, {plain_mae, plain_mae_error, plain_low, plain_high, plain_rmse, plain_r, plain_r2, plain_gap, plain_gap_age_r});
  ASSERT_EQ(m.decades.size(), decade_starts.size());
  int64_t total = 0;
  for (size_t i = 0; i < m.decades.size(); ++i) {
    EXPECT_EQ(m.decades[i].from, static_cast<int64_t>(decade_starts[i]));
    expect_close(m.decades[i].mae, decade_maes[i]);
    expect_close(m.decades[i].mean_gap, decade_gaps[i]);
    total += m.decades[i].count;
  }
  EXPECT_EQ(total, 30);
}

TEST(RegressionMetrics, BiasCorrectionAgreesWithNumPy) {
  using namespace golden;
  const BiasCorrection fit = fit_bias(train_age, train_predicted);
  ASSERT_TRUE(fit.usable());
  expect_close(fit.intercept, intercept);
  expect_close(fit.slope, slope);
  std::vector<double> found;
  for (size_t i = 0; i < predicted.size(); ++i) {
    found.push_back(fit(predicted[i]));
    expect_close(found[i], corrected[i]);
  }
  const std::vector<double> means(age.size(), golden_mean(train_age));
  const RegressionReport report =
      regression_report({.truth = age, .predicted = predicted, .corrected = found, .training_means = means}, kMany);
  expect_metrics(report.plain,
                 {plain_mae, plain_mae_error, plain_low, plain_high, plain_rmse, plain_r, plain_r2, plain_gap, plain_gap_age_r});
  expect_metrics(report.corrected.value(), {corrected_mae, corrected_mae_error, corrected_low, corrected_high, corrected_rmse, corrected_r,
                                            corrected_r2, corrected_gap, corrected_gap_age_r});
  expect_close(report.mean_predictor_mae.value(), mean_predictor_mae);
}

TEST(RegressionMetrics, PairedDifferenceAgreesWithNumPy) {
  using namespace golden;
  const PairedDifference d = paired_difference(age, predicted, other, kMany);
  EXPECT_EQ(d.count, 30);
  expect_close(d.mean, difference);
  expect_close(d.error.value(), difference_error);
  expect_close(d.better_share, better_share);
  EXPECT_TRUE(d.interval.low < d.mean && d.mean < d.interval.high);
  EXPECT_NEAR(d.interval.high - d.interval.low, 2 * 1.96 * difference_error, 0.3 * difference_error);
  const PairedDifference back = paired_difference(age, other, predicted, kMany);
  expect_close(back.mean, -d.mean);
  expect_close(back.interval.low, -d.interval.high);
  expect_close(back.better_share, 1 - d.better_share);
  const PairedDifference same = paired_difference(age, other, other);
  EXPECT_EQ(same.mean, 0);
  EXPECT_EQ(same.better_share, 0.5);
}

TEST(RegressionMetrics, ByHand) {
  const RegressionMetrics m = regression_metrics(std::vector<double>{20, 30, 40}, std::vector<double>{22, 27, 41});
  EXPECT_DOUBLE_EQ(m.mae, 2);
  EXPECT_DOUBLE_EQ(m.mae_error.value(), std::sqrt(1.0 / 3));
  EXPECT_DOUBLE_EQ(m.rmse, std::sqrt(14.0 / 3));
  EXPECT_DOUBLE_EQ(m.mean_gap, 0);
  EXPECT_DOUBLE_EQ(m.r2.value(), 1 - 14.0 / 200);
  EXPECT_DOUBLE_EQ(m.gap_age_r.value(), -10 / std::sqrt(200.0 * 14));
  ASSERT_EQ(m.decades.size(), 3u);
  EXPECT_EQ(m.decades[1].from, 30);
  EXPECT_DOUBLE_EQ(m.decades[1].mean_gap, -3);
}

TEST(RegressionMetrics, WhatIsUndefinedIsNotGiven) {
  const RegressionMetrics one = regression_metrics(std::vector<double>{50}, std::vector<double>{53});
  EXPECT_EQ(one.mae, 3);
  EXPECT_EQ(one.mae_interval.low, 3);
  EXPECT_EQ(one.mae_interval.high, 3);
  EXPECT_FALSE(one.mae_error || one.r || one.r2 || one.gap_age_r);
  // Means of constants are off in their last bits.
  const std::vector<double> ages{20.1, 30.2, 40.3}, constant(3, 0.1 + 0.2 + 40);
  const RegressionMetrics flat = regression_metrics(ages, constant);
  EXPECT_FALSE(flat.r);
  EXPECT_TRUE(flat.r2 && flat.mae_error);
  EXPECT_NEAR(flat.gap_age_r.value(), -1, 1e-12);
  const RegressionMetrics shifted = regression_metrics(ages, std::vector<double>{23.1, 33.2, 43.3});
  EXPECT_FALSE(shifted.gap_age_r) << "the gap is 3 for all";
  EXPECT_NEAR(shifted.r.value(), 1, 1e-12);
  const RegressionMetrics peers = regression_metrics(constant, ages);
  EXPECT_FALSE(peers.r || peers.r2 || peers.gap_age_r);
}

TEST(RegressionMetrics, Refusals) {
  const std::vector<double> two{1, 2}, three{1, 2, 3}, bad{1, kNaN}, none;
  EXPECT_THROW(regression_metrics(none, none), Error);
  EXPECT_THROW(regression_metrics(two, three), Error);
  EXPECT_THROW(regression_metrics(two, bad), Error);
  EXPECT_THROW(regression_metrics(bad, two), Error);
  EXPECT_THROW(regression_metrics(two, std::vector<double>{1, std::numeric_limits<double>::infinity()}), Error);
  EXPECT_THROW(regression_metrics(two, two, {.replicates = 0}), Error);
  EXPECT_THROW(fit_bias(two, three), Error);
  EXPECT_THROW(fit_bias(bad, two), Error);
  EXPECT_THROW(paired_difference(two, two, bad), Error);
  EXPECT_THROW(pearson(two, three), Error);
  EXPECT_THROW(regression_report({.truth = two, .predicted = two, .corrected = three}), Error);
  EXPECT_THROW(regression_report({.truth = two, .predicted = two, .training_means = bad}), Error);
}

TEST(RegressionMetrics, NoCorrectionWherePredictionsDoNotFollowAge) {
  const std::vector<double> ages{20, 40, 60, 80};
  for (const std::vector<double>& predicted : {std::vector<double>{50, 50, 50, 50}, {80, 60, 40, 20}, {50, 51, 52, 53}}) {
    const BiasCorrection fit = fit_bias(ages, predicted);
    EXPECT_FALSE(fit.usable()) << fit.slope;
    EXPECT_THROW(fit(50), Error);
  }
  EXPECT_FALSE(fit_bias(std::vector<double>{20, 40}, std::vector<double>{20, 40}).usable()) << "a line through two subjects says nothing";
  EXPECT_FALSE(fit_bias(std::vector<double>(5, 33.3), std::vector<double>{1, 2, 3, 4, 5}).usable()) << "all of one age";
}

/// On the subjects it was fitted on, the corrected gap does not hang on age.
TEST(RegressionMetrics, CorrectionTakesTheBiasAway) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const RngKey key{seed};
    std::vector<double> ages, predicted, corrected;
    for (uint64_t i = 0; i < 100; ++i) {
      ages.push_back(20 + 60 * uniform(key, i));
      predicted.push_back(45 + 0.5 * (ages.back() - 50) + 4 * normal(key.fold(1), i));
    }
    const BiasCorrection fit = fit_bias(ages, predicted);
    for (const double p : predicted) corrected.push_back(fit(p));
    const RegressionMetrics before = regression_metrics(ages, predicted), after = regression_metrics(ages, corrected);
    EXPECT_LT(before.gap_age_r.value(), -0.7);
    EXPECT_NEAR(after.mean_gap, 0, 1e-10);
    EXPECT_NEAR(fit_bias(ages, corrected).slope, 1, 1e-12);
    EXPECT_NEAR(after.r.value(), before.r.value(), 1e-12) << "a line changes no correlation";
  }
}

TEST(RegressionMetrics, TheIntervalHoldsTheTruthAsOftenAsItSays) {
  int held = 0;
  constexpr int trials = 400;
  const double truth = std::sqrt(2 / 3.14159265358979323846);  // mean size of a standard normal
  for (uint64_t t = 0; t < trials; ++t) {
    std::vector<double> zeros(80), draws;
    for (uint64_t i = 0; i < 80; ++i) draws.push_back(normal(RngKey{t}.fold(7), i));
    const Interval interval = regression_metrics(zeros, draws, {.seed = t, .replicates = 500}).mae_interval;
    held += interval.low <= truth && truth <= interval.high;
  }
  EXPECT_NEAR(held, 0.94 * trials, 20);  // a little below 95 %, as is known of it; one standard deviation is 4.5
}

TEST(RegressionMetrics, TheSeedDrawsTheInterval) {
  using namespace golden;
  const auto low = [](uint64_t seed) { return regression_metrics(age, predicted, {.seed = seed}).mae_interval.low; };
  EXPECT_EQ(low(3), low(3));
  EXPECT_NE(low(3), low(4));
}

}  // namespace
}  // namespace ermoe
