// The made-up data set is the same every time and can be learnt: the angle of its gratings tells the class.
#include "data/dataset.h"
#include "tests/data/fixtures.h"

#include <cmath>

namespace ermoe {
namespace {

using testing::input_error;

/// Cosine and sine of twice the angle along which grey levels change most (structure tensor of horizontal and vertical steps).
std::pair<double, double> direction(const Image& image) {
  double xx = 0, yy = 0, xy = 0;
  const auto grey = [&](int64_t y, int64_t x) {
    double sum = 0;
    for (int64_t c = 0; c < image.channels; ++c) sum += image.pixels[static_cast<size_t>((y * image.width + x) * image.channels + c)];
    return sum;
  };
  for (int64_t y = 1; y + 1 < image.height; ++y) {
    for (int64_t x = 1; x + 1 < image.width; ++x) {
      const double dx = grey(y, x + 1) - grey(y, x - 1), dy = grey(y + 1, x) - grey(y - 1, x);
      xx += dx * dx;
      yy += dy * dy;
      xy += dx * dy;
    }
  }
  const double length = std::hypot(xx - yy, 2 * xy);
  return {(xx - yy) / length, 2 * xy / length};
}

TEST(Synthetic, CanBeLearnt) {
  for (const std::string path : {"synthetic", "synthetic:channels=1,classes=6"}) {
    const DatasetSplits splits = open_dataset(path);
    const auto classes = splits.train->class_names().size();
    std::vector<std::pair<double, double>> mean(classes);
    for (int64_t i = 0; i < 300; ++i) {
      const auto [c, s] = direction(splits.train->read(i));
      auto& m = mean[static_cast<size_t>(splits.train->label(i))];
      m = {m.first + c, m.second + s};
    }
    int64_t right = 0;
    for (int64_t i = 0; i < 200; ++i) {
      const auto [c, s] = direction(splits.test->read(i));
      size_t best = 0;
      for (size_t y = 1; y < classes; ++y) {
        if (mean[y].first * c + mean[y].second * s > mean[best].first * c + mean[best].second * s) best = y;
      }
      right += static_cast<int32_t>(best) == splits.test->label(i);
    }
    EXPECT_GT(right, 180) << path;
  }
}

TEST(Synthetic, IsTheSameEveryTimeAndBalanced) {
  const DatasetSplits a = open_dataset("synthetic:classes=4,size=16,count=100"), b = open_dataset("synthetic:classes=4,size=16,count=400");
  EXPECT_EQ(a.train->size(), 100);
  EXPECT_EQ(a.test->size(), 25);
  EXPECT_EQ(a.train->read(99), b.train->read(99));
  EXPECT_NE(a.train->read(5), a.train->read(9)) << "one class, two images";
  EXPECT_NE(a.train->read(5), a.test->read(5)) << "training images may not come back in the test";
  EXPECT_EQ(a.train->read(5).width, 16);
  std::vector<int> counts(4);
  for (int64_t i = 0; i < 100; ++i) ++counts[static_cast<size_t>(a.train->label(i))];
  EXPECT_EQ(counts, std::vector<int>(4, 25));
}

TEST(Synthetic, RefusesWhatItDoesNotKnow) {
  EXPECT_NE(input_error([] { open_dataset("synthetic:colour=3"); }).find("\"colour\""), std::string::npos);
  for (const char* path :
       {"synthetic:size", "synthetic:size=", "synthetic:size=2x", "synthetic:size=-5", "synthetic:count=99999999999999999999",
        "synthetic:classes=1", "synthetic:channels=2", "synthetic:count=5", "synthetic:,"}) {
    EXPECT_NE(input_error([&] { open_dataset(path); }).find(path), std::string::npos);
  }
}

}  // namespace
}  // namespace ermoe
