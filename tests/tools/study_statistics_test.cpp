// Statistics of a study's table against numbers of tables that everyone has.
#include "tools/study_statistics.h"

#include "core/error.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

namespace ermoe {
namespace {

TEST(StudyStatistics, QuantilesOfStudentsTAreThoseOfTheTables) {
  // With one and two degrees of freedom there is a formula; the others are Simpson's rule over the density, which tables agree with.
  EXPECT_NEAR(student_t_quantile(0.975, 1), std::tan(0.475 * std::numbers::pi), 1e-10);
  EXPECT_NEAR(student_t_quantile(0.975, 2), 0.95 * std::sqrt(2 / (1 - 0.95 * 0.95)), 1e-11);
  EXPECT_NEAR(student_t_quantile(0.975, 3), 3.182446305284, 1e-11);
  EXPECT_NEAR(student_t_quantile(0.975, 4), 2.776445105198, 1e-11);
  EXPECT_NEAR(student_t_quantile(0.975, 9), 2.262157162798, 1e-11);
  EXPECT_NEAR(student_t_quantile(0.975, 30), 2.042272456301, 1e-11);
  EXPECT_NEAR(student_t_quantile(0.95, 5), 2.015048373333, 1e-11);
  EXPECT_NEAR(student_t_quantile(0.5, 7), 0, 1e-12);
  EXPECT_NEAR(student_t_quantile(0.975, 100000), 1.959963984540054, 1e-4);
  EXPECT_THROW(student_t_quantile(1, 3), Error);
  EXPECT_THROW(student_t_quantile(0.975, 0), Error);
}

TEST(StudyStatistics, SpreadIsThatOfASample) {
  const std::vector<double> values{2, 4, 4, 4, 5, 5, 7, 9};
  EXPECT_EQ(spread_of(values).mean, 5);
  EXPECT_NEAR(*spread_of(values).deviation, std::sqrt(32.0 / 7), 1e-12);
  EXPECT_FALSE(spread_of(std::vector<double>{3}).deviation.has_value());
  EXPECT_THROW(spread_of(std::vector<double>{}), Error);
}

TEST(StudyStatistics, PairedDifferencesAreThoseOfATTestByHand) {
  // Student's sleep data (Biometrika 1908): ten patients, two drugs; R's t.test(paired = TRUE) gives -2.46 to -0.70.
  const std::vector<double> first{0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0};
  const std::vector<double> second{1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4};
  const RowDifference d = difference_over_seeds(first, second);
  EXPECT_NEAR(d.mean, -1.58, 1e-12);
  EXPECT_EQ(d.pairs, 10);
  EXPECT_EQ(d.over, Over::seeds);
  EXPECT_NEAR(d.interval->low, -2.4598858, 1e-6);
  EXPECT_NEAR(d.interval->high, -0.7001142, 1e-6);
  const RowDifference one = difference_over_seeds(std::vector<double>{0.9}, std::vector<double>{0.8});
  EXPECT_NEAR(one.mean, 0.1, 1e-12);
  EXPECT_FALSE(one.interval.has_value());
  EXPECT_THROW(difference_over_seeds(first, std::vector<double>{1}), Error);
}

TEST(StudyStatistics, OverSamplesTheIntervalIsTheNormalOne) {
  // Of 100 images one is right in 60 and the other in 50: 20 against 10 where they differ.
  std::vector<double> a, b;
  for (int i = 0; i < 100; ++i) {
    a.push_back(i < 60 ? 1 : 0);
    b.push_back(i >= 20 && i < 70 ? 1 : 0);
  }
  const RowDifference d = difference_over_samples(a, b);
  EXPECT_NEAR(d.mean, 0.1, 1e-12);
  EXPECT_EQ(d.over, Over::samples);
  const double half = 1.959963984540054 * std::sqrt((30 - 100 * 0.01) / 99 / 100);
  EXPECT_NEAR(d.interval->low, 0.1 - half, 1e-12);
  EXPECT_NEAR(d.interval->high, 0.1 + half, 1e-12);
}

}  // namespace
}  // namespace ermoe
