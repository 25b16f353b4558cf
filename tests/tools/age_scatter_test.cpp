// The picture of predicted over true ages: points where they belong, on one scale.
#include "tools/age_scatter.h"

#include "core/error.h"
#include "core/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>

namespace ermoe {
namespace {

std::vector<AgePrediction> study(int count, double slope) {
  std::vector<AgePrediction> predictions;
  for (uint64_t i = 0; i < static_cast<uint64_t>(count); ++i) {
    const double age = 20 + 66 * uniform(RngKey{1}, i);
    predictions.push_back(
        {.subject = "s" + std::to_string(i), .age = age, .predicted = 50 + slope * (age - 50) + 6 * normal(RngKey{2}, i)});
  }
  return predictions;
}

bool is_blue(const Image& image, int64_t x, int64_t y) {
  const uint8_t* p = &image.pixels[static_cast<size_t>((y * image.width + x) * 3)];
  return p[2] > p[0] + 40;
}

/// The bounding box of bluish pixels: left, top, right, bottom.
std::array<int64_t, 4> points_box(const Image& image) {
  std::array<int64_t, 4> box{image.width, image.height, -1, -1};
  for (int64_t y = 0; y < image.height; ++y) {
    for (int64_t x = 0; x < image.width; ++x) {
      if (!is_blue(image, x, y)) continue;
      box = {std::min(box[0], x), std::min(box[1], y), std::max(box[2], x), std::max(box[3], y)};
    }
  }
  return box;
}

TEST(AgeScatter, PointsLieWhereTheirAgesAre) {
  // From 20 to 80 the scale is the pane: the three corners' points are as far apart in years as in pixels.
  const Image image = age_scatter(
      std::vector<AgePrediction>{{.subject = "a", .age = 20, .predicted = 20}, {.subject = "b", .age = 80, .predicted = 80}}, "corners");
  const auto box = points_box(image);
  EXPECT_EQ(box[2] - box[0], box[3] - box[1]);
  EXPECT_TRUE(is_blue(image, box[0] + 3, box[3] - 3)) << "young and predicted young: at the left below";
  EXPECT_TRUE(is_blue(image, box[2] - 3, box[1] + 3));
  EXPECT_FALSE(is_blue(image, box[0] + 3, box[1] + 3));
  const Image high = age_scatter(std::vector<AgePrediction>{{.subject = "a", .age = 20, .predicted = 80},
                                                            {.subject = "b", .age = 20, .predicted = 20},
                                                            {.subject = "c", .age = 50, .predicted = 50}},
                                 "");
  const auto half = points_box(high);
  EXPECT_NEAR(2 * (half[2] - half[0] - 10), half[3] - half[1] - 10, 2) << "50 is half-way from 20 to 80";
  EXPECT_TRUE(is_blue(high, half[0] + 3, half[1] + 3));
}

TEST(AgeScatter, CorrectedAgesHaveAPaneOfTheirOwn) {
  std::vector<AgePrediction> predictions = study(151, 0.6);
  const Image plain = age_scatter(predictions, "one");
  apply_correction({.intercept = 20, .slope = 0.6}, predictions);
  const Image both = age_scatter(predictions, "Brain age, out of fold");
  EXPECT_EQ(both.width, 2 * plain.width);
  EXPECT_EQ(both.height, plain.height);
}

TEST(AgeScatter, OddInputs) {
  EXPECT_GT(age_scatter(study(1, 1), "one").width, 0);
  std::vector<AgePrediction> same(5, {.subject = "x", .age = 40, .predicted = 40});
  EXPECT_GT(age_scatter(same, "five alike").width, 0);
  same[2].predicted = -3e8;
  same[3].predicted = 3e38;
  EXPECT_GT(age_scatter(same, "diverged").width, 0);
  for (AgePrediction& p : same) p.predicted = p.age = 3e38;
  EXPECT_GT(age_scatter(same, "far out").width, 0);
  EXPECT_THROW(age_scatter({}, "none"), Error);
  same[1].predicted = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(age_scatter(same, "no number"), Error);
}

}  // namespace
}  // namespace ermoe
