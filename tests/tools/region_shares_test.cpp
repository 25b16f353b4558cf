// Cubes of voxels, and how much of each region lies in each.
#include "tools/region_shares.h"

#include "core/error.h"
#include "ops/region_mask.h"
#include "tests/bench.h"

#include <gtest/gtest.h>

#include <limits>

namespace ermoe {
namespace {

TEST(CubeGrid, CountsXFastestAndCutsTheLastCubes) {
  const CubeGrid grid{{5, 4, 2}, 2};
  EXPECT_EQ(grid.cubes(), (std::array<int64_t, 3>{3, 2, 1}));
  EXPECT_EQ(grid.count(), 6);
  EXPECT_EQ(grid.cube_of(0, 0, 0), 0);
  EXPECT_EQ(grid.cube_of(4, 1, 1), 2);
  EXPECT_EQ(grid.cube_of(2, 3, 0), 4);
  // The window's middle is at 2.5 x 2 x 1 voxels; the cube of x 4 is one voxel wide.
  EXPECT_EQ(grid.middle_of(0), (Point3{-1.5, -1, 0}));
  EXPECT_EQ(grid.middle_of(2), (Point3{2, -1, 0}));
  EXPECT_EQ(grid.middle_of(4), (Point3{0.5, 1, 0}));
}

TEST(RegionVoxels, AreCountedByCubeAndLabel) {
  const CubeGrid grid{{4, 2, 1}, 2};
  const std::vector<float> map = {0, 7, 7, 7,      //
                                  0, 3, 7, 7.2f};  // rounded
  std::vector<int64_t> labels;
  add_labels(map, "s1", labels);
  EXPECT_EQ(labels, (std::vector<int64_t>{0, 3, 7}));
  EXPECT_EQ(region_voxels(grid, map, labels), (std::vector<double>{2, 1, 1, 0, 0, 4}));
}

TEST(RegionVoxels, LabelsOfSeveralMapsAreJoined) {
  std::vector<int64_t> labels;
  add_labels(std::vector<float>{9, 2}, "a", labels);
  add_labels(std::vector<float>{2, 0, 65535}, "b", labels);
  EXPECT_EQ(labels, (std::vector<int64_t>{0, 2, 9, 65535}));
}

TEST(RegionVoxels, WhatIsNoLabelIsRefusedWithItsSubject) {
  for (const float wrong : {-1.0f, 65536.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<int64_t> labels;
    try {
      add_labels(std::vector<float>{1, wrong}, "IXI7", labels);
      ADD_FAILURE() << wrong;
    } catch (const InputError& e) {
      EXPECT_TRUE(std::string(e.what()).starts_with("subject IXI7: its map of regions holds ")) << e.what();
    }
  }
}

// The op knows which token a voxel belongs to; a class token stands in front.
TEST(CubeGrid, CountsPatchesAsTheModelCountsItsTokens) {
  testing::TestBench bench;
  const CubeGrid grid{{4, 6, 8}, 2};
  const RegionTable table = make_region_table(bench.ctx, {{1}});
  for (const auto& [i, j, k] : {std::array<int64_t, 3>{3, 0, 0}, {0, 5, 0}, {1, 1, 7}, {2, 3, 4}}) {
    std::vector<float> labels(4 * 6 * 8);
    labels[static_cast<size_t>(i + 4 * (j + 6 * k))] = 1;
    const Tensor mask = region_mask(bench.ctx, Tensor::from<float>(bench.allocator, {1, 8, 6, 4}, labels), table, 2, 1, 0);
    for (int64_t token = 0; token < mask.numel(); ++token)
      EXPECT_EQ(mask.data<uint8_t>()[token], token == 1 + grid.cube_of(i, j, k)) << token;
  }
}

TEST(SpreadOverVoxels, WritesEachCubesValueWhereItLiesInTheWorld) {
  // A window of 4 x 6 x 8 voxels of 3 mm in patches of 2; one patch, off the middle along every axis, has a value.
  const CubeGrid grid{{4, 6, 8}, 2};
  std::vector<double> values(static_cast<size_t>(grid.count()));
  values[static_cast<size_t>(grid.cube_of(2, 0, 6))] = 5;
  const Volume map = spread_over_voxels(grid, values, 3);
  EXPECT_EQ(map.grid.size, (std::array<int64_t, 3>{4, 6, 8}));
  double sum = 0;
  Point3 mean{};
  for (int64_t k = 0; k < 8; ++k)
    for (int64_t j = 0; j < 6; ++j)
      for (int64_t i = 0; i < 4; ++i) {
        const Point3 mm = map.grid.to_world({static_cast<double>(i), static_cast<double>(j), static_cast<double>(k)});
        sum += map.at(i, j, k);
        for (size_t a = 0; a < 3; ++a) mean[a] += map.at(i, j, k) * mm[a];
      }
  EXPECT_EQ(sum, 5 * 8);
  // Right (x above 0), back (y below 0), up (z above 0).
  EXPECT_EQ((Point3{mean[0] / sum, mean[1] / sum, mean[2] / sum}), (Point3{3, -6, 9}));
}

}  // namespace
}  // namespace ermoe
