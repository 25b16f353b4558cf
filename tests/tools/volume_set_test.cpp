// Rows that are gathered ahead are those asked for, whatever was begun.
#include "tools/volume_set.h"

#include "tests/bench.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

/// Volumes of 2 x 2 x 2 voxels, all of which are `base` + their number.
VolumeSet counting_set(CachingAllocator& memory, float base, int64_t n) {
  VolumeSet set{.subjects = std::vector<Subject>(static_cast<size_t>(n)),
                .volumes = Tensor::empty(memory, {n, 1, 2, 2, 2}, DType::f32),
                .labels = Tensor::empty(memory, {n, 2, 2, 2}, DType::f32)};
  for (int64_t i = 0; i < 8 * n; ++i) {
    set.volumes.data<float>()[i] = base + static_cast<float>(i / 8);
    set.labels.data<float>()[i] = -set.volumes.data<float>()[i];
  }
  return set;
}

std::vector<float> first_voxels(const VolumeRows& rows) {
  std::vector<float> values;
  for (int64_t b = 0; b < rows.volumes.shape()[0]; ++b) {
    values.push_back(rows.volumes.at(b).data<float>()[7]);
    EXPECT_EQ(rows.labels.at(b).data<float>()[0], -values.back());
  }
  return values;
}

TEST(RowsAhead, GivesWhatIsAskedForWhateverWasBegun) {
  TestBench bench;
  VolumeSet set = counting_set(bench.allocator, 0, 10), other = counting_set(bench.allocator, 100, 10);
  RowsAhead ahead(bench.allocator);
  EXPECT_EQ(first_voxels(ahead.take(set, {3, 1})), (std::vector<float>{3, 1})) << "nothing was begun";
  ahead.begin(set, {4, 9, 4});
  EXPECT_EQ(first_voxels(ahead.take(set, {4, 9, 4})), (std::vector<float>{4, 9, 4}));
  ahead.begin(set, {5, 6});
  EXPECT_EQ(first_voxels(ahead.take(set, {6, 5})), (std::vector<float>{6, 5})) << "others were begun";
  ahead.begin(set, {5, 6});
  EXPECT_EQ(first_voxels(ahead.take(other, {5, 6})), (std::vector<float>{105, 106})) << "of another set";
  ahead.begin(set, {1});
  ahead.begin(set, {2});
  EXPECT_EQ(first_voxels(ahead.take(set, {2})), std::vector<float>{2});
  EXPECT_EQ(ahead.take(set, {}).volumes.shape(), Shape({0, 1, 2, 2, 2})) << "a rank without a volume in this batch";
  set.labels = {};
  EXPECT_FALSE(ahead.take(set, {2}).labels.defined());
  ahead.begin(set, {7});  // and nobody takes it
}

TEST(RowsAhead, TellsHowLongItWaited) {
  TestBench bench;
  const VolumeSet set = counting_set(bench.allocator, 0, 10);
  RowsAhead ahead(bench.allocator);
  EXPECT_EQ(ahead.wait_seconds(), 0);
  ahead.take(set, {1});
  EXPECT_GT(ahead.wait_seconds(), 0);
}

}  // namespace
}  // namespace ermoe::testing
