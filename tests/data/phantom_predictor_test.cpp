// The best predictor of made-up subjects' ages: its closed form against draws.
#include "data/phantom_predictor.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ermoe {
namespace {

TEST(PhantomPredictor, ErrorIsThatOfDraws) {
  for (const AgeModel& model : {AgeModel{20, 80, 4}, AgeModel{20, 80, 1.3}, AgeModel{40, 60, 12}}) {
    const double exact = model.mean_error(), drawn = model.simulated_error(20000, {11});
    EXPECT_NEAR(drawn, exact, 4 * exact / std::sqrt(20000.0)) << model.error_years;
    EXPECT_LT(exact, model.mean_error_inside()) << "the ends help";
    EXPECT_LT(exact, model.mean_predictor_error());
  }
}

TEST(PhantomPredictor, LimitsAreKnown) {
  EXPECT_NEAR((AgeModel{0, 1e5, 4}.mean_error()), 4 * std::sqrt(2 / 3.14159265358979), 1e-3);
  EXPECT_NEAR((AgeModel{20, 80, 5000}.mean_error()), 15, 0.01) << "nothing is seen";
  EXPECT_NEAR((AgeModel{20, 80, 4}.best_guess(50)), 50, 1e-9);
  EXPECT_NEAR((AgeModel{20, 80, 4}.best_guess(-1000)), 20, 1e-9);
  EXPECT_NEAR((AgeModel{20, 80, 4}.best_guess(1000)), 80, 1e-9);
}

TEST(PhantomPredictor, NoOtherGuessHasALessSquaredError) {
  const AgeModel model{20, 80, 6};
  const auto squared = [&](double stretch, double shift) {
    double sum = 0;
    for (uint64_t i = 0; i < 20000; ++i) {
      const double age = 20 + 60 * static_cast<double>(uniform(RngKey{1}, i));
      const double guess = model.best_guess(age + 6 * normal(RngKey{2}, i));
      sum += std::pow(50 + stretch * (guess - 50) + shift - age, 2);
    }
    return sum;
  };
  const double best = squared(1, 0);
  for (const double stretch : {0.9, 1.1}) EXPECT_GT(squared(stretch, 0), best);
  for (const double shift : {-1.0, 1.0}) EXPECT_GT(squared(1, shift), best);
}

}  // namespace
}  // namespace ermoe
