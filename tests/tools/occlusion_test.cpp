// Covering parts of a volume: where a prediction changes, and by how much.
#include "tools/occlusion.h"

#include <gtest/gtest.h>

#include <numeric>

namespace ermoe {
namespace {

TEST(Occlusion, FindsThePlaceThatThePredictionRestsOn) {
  const CubeGrid grid{{4, 4, 4}, 2};
  std::vector<float> volume(64, 1), cover(64, 0.25f);
  volume[3] = 5;  // voxel (3, 0, 0), cube 1
  const auto predict = [](const std::vector<float>& volumes, int64_t count) {
    std::vector<double> said;
    for (int64_t i = 0; i < count; ++i) said.push_back(10.0 - 2 * volumes[static_cast<size_t>(i) * 64 + 3]);
    return said;
  };
  EXPECT_EQ(occlude(voxels_of_cubes(grid), volume, cover, 3, predict), (std::vector<double>{0, 9.5, 0, 0, 0, 0, 0, 0}));
}

TEST(Occlusion, CoversEachCubeOnceInBatchesThatAreFullButTheLast) {
  const CubeGrid grid{{3, 2, 2}, 2};  // the second cube is cut off
  std::vector<float> volume(12, 1), cover(12, 0);
  std::vector<int64_t> batches;
  const auto sum = [&](const std::vector<float>& volumes, int64_t count) {
    batches.push_back(count);
    EXPECT_EQ(std::ssize(volumes), 12 * count);
    std::vector<double> said;
    for (int64_t i = 0; i < count; ++i) said.push_back(std::accumulate(volumes.begin() + 12 * i, volumes.begin() + 12 * (i + 1), 0.0));
    return said;
  };
  EXPECT_EQ(occlude(voxels_of_cubes(grid), volume, cover, 1, sum), (std::vector<double>{-8, -4}));
  EXPECT_EQ(batches, (std::vector<int64_t>{1, 1, 1}));
}

TEST(Occlusion, WhatIsAlreadyAsTheCoverIsNotAskedAbout) {
  const CubeGrid grid{{4, 2, 2}, 2};
  std::vector<float> volume(16, 0), cover(16, 0);
  volume[0] = 1;  // cube 0
  int64_t asked = 0;
  const auto predict = [&](const std::vector<float>&, int64_t count) {
    asked += count;
    return std::vector<double>(static_cast<size_t>(count), 7.0);
  };
  EXPECT_EQ(occlude(voxels_of_cubes(grid), volume, cover, 8, predict), (std::vector<double>{0, 0}));
  EXPECT_EQ(asked, 2);  // the whole one, and cube 0 covered
}

TEST(Occlusion, ARegionIsCoveredAsAWhole) {
  const std::vector<float> map = {0, 2, 2, 7, 0}, volume = {1, 1, 3, 1, 1}, cover = {0, 0, 0, 1, 0};
  const auto sum = [](const std::vector<float>& volumes, int64_t count) {
    std::vector<double> said;
    for (int64_t i = 0; i < count; ++i) said.push_back(std::accumulate(volumes.begin() + 5 * i, volumes.begin() + 5 * (i + 1), 0.0));
    return said;
  };
  const auto parts = voxels_of_labels(map, std::vector<int64_t>{2, 7, 9});
  EXPECT_EQ(parts, (std::vector<std::vector<size_t>>{{1, 2}, {3}, {}}));
  EXPECT_EQ(occlude(parts, volume, cover, 2, sum), (std::vector<double>{-4, 0, 0}));
}

}  // namespace
}  // namespace ermoe
