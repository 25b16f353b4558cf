// Maps as slices: that they are the right way up.
#include "tools/expert_slices.h"

#include "tools/region_shares.h"

#include <gtest/gtest.h>

#include <array>

namespace ermoe {
namespace {

/// A brain of 24 x 28 x 20 voxels of 4 mm, and a map that is 1 in one patch, right of the middle, in front of it and above it.
struct Fake {
  MeanBrain brain;
  Volume map;
  Fake() {
    const CubeGrid patches{{24, 28, 20}, 4};
    brain.intensities.grid = centred_grid(patches.voxels, 4);
    for (int64_t k = 0; k < 20; ++k)
      for (int64_t j = 0; j < 28; ++j)
        for (int64_t i = 0; i < 24; ++i) {
          const bool inside = i > 1 && i < 22 && j > 1 && j < 26 && k > 1 && k < 18;
          brain.inside.push_back(inside);
          brain.intensities.values.push_back(inside ? 1.0f : 0.0f);
        }
    std::vector<double> values(static_cast<size_t>(patches.count()));
    values[static_cast<size_t>(patches.cube_of(17, 21, 13))] = 1;
    map = spread_over_voxels(patches, values, 4);
  }
};

/// Middle of the pixels that are far more red than blue, within columns of the picture.
std::array<double, 3> middle_of_colour(const Image& image, int64_t from, int64_t to, int64_t below, int64_t above) {
  double x = 0, y = 0, n = 0;
  for (int64_t j = below; j < above; ++j)
    for (int64_t i = from; i < to; ++i) {
      const uint8_t* p = &image.pixels[static_cast<size_t>((j * image.width + i) * 3)];
      if (p[0] < p[2] + 40) continue;
      x += static_cast<double>(i), y += static_cast<double>(j), n += 1;
    }
  return {x / n, y / n, n};
}

TEST(ExpertSlices, RightIsRightFrontIsUpAndTopIsUp) {
  const Fake fake;
  const Image image = draw_maps(fake.brain, {{"expert 0", fake.map}}, 4, 0, 1, "block 1", "weight");
  // Panes: 28, 24 and 24 voxels wide, 230 pixels for 28; they begin at 20 pixels with 14 between them, 70 from the top.
  const double pixel = 230.0 / 28;
  const std::array<int64_t, 4> begin = {20, 20 + 230 + 14, 20 + 230 + 14 + 197 + 14, 20 + 230 + 14 + 197 + 14 + 197};
  // The patch: voxels 16 to 19 of 24 from the left, 20 to 23 of 28 from the back, 12 to 15 of 20 from below.
  const double x = 18 * pixel, y = 22 * pixel, z = 14 * pixel, height = 20 * pixel, depth = 28 * pixel;
  const auto sagittal = middle_of_colour(image, begin[0], begin[1] - 14, 70, 70 + 231);
  EXPECT_NEAR(sagittal[0], 20 + y, 2);
  EXPECT_NEAR(sagittal[1], 70 + height - z, 2);
  const auto coronal = middle_of_colour(image, begin[1], begin[2] - 14, 70, 70 + 231);
  EXPECT_NEAR(coronal[0], static_cast<double>(begin[1]) + x, 2);
  EXPECT_NEAR(coronal[1], 70 + height - z, 2);
  const auto axial = middle_of_colour(image, begin[2], begin[3], 70, 70 + 231);
  EXPECT_NEAR(axial[0], static_cast<double>(begin[2]) + x, 2);
  EXPECT_NEAR(axial[1], 70 + depth - y, 2);
  EXPECT_NEAR(axial[2], 16 * pixel * pixel, 100);  // the patch and nothing else
}

TEST(ExpertSlices, HasARowForEachMapUpToAHundred) {
  const Fake fake;
  const auto height = [&](size_t rows) {
    return draw_maps(fake.brain, std::vector<MapRow>(rows, MapRow{"e", fake.map}), 4, 0, 1, "t", "u").height;
  };
  EXPECT_EQ(height(3) - height(2), height(2) - height(1));
  EXPECT_EQ(height(101), height(100));
}

}  // namespace
}  // namespace ermoe
