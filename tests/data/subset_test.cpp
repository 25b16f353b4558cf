// Parts of a data set: balanced, disjoint, and still the samples they were.
#include "data/subset.h"

#include "tests/data/fixtures.h"

#include <numeric>

namespace ermoe {
namespace {

using testing::CountingDataset;

TEST(Subset, KeepsWhatItsSamplesAre) {
  const auto part = subset(std::make_shared<CountingDataset>(10, 2, 1), {7, 2});
  EXPECT_EQ(part->size(), 2);
  EXPECT_EQ(part->name(0), "sample7");
  EXPECT_EQ(part->label(0), 1);
  EXPECT_EQ(part->read(1).pixels[0], 2);
  EXPECT_THROW(subset(std::make_shared<CountingDataset>(10, 2, 1), {10}), Error);
  EXPECT_THROW(subset(std::make_shared<CountingDataset>(10, 2, 1), {}), InputError);
}

/// Class 0 has the first six samples, class 1 two, class 2 one.
class Skewed final : public ImageDataset {
 public:
  int64_t size() const override { return 9; }
  const std::vector<std::string>& class_names() const override { return names_; }
  int32_t label(int64_t i) const override { return i < 6 ? 0 : i < 8 ? 1 : 2; }
  Image read(int64_t) const override { return {}; }
  std::string name(int64_t i) const override { return std::to_string(i); }

 private:
  std::vector<std::string> names_ = {"many", "few", "one"};
};

TEST(Subset, FirstSamplesAreAsBalancedAsTheyCanBe) {
  const Skewed dataset;
  EXPECT_EQ(balanced_indices(dataset, 3), (std::vector<int64_t>{0, 6, 8}));
  EXPECT_EQ(balanced_indices(dataset, 5), (std::vector<int64_t>{0, 1, 6, 7, 8}));
  EXPECT_EQ(balanced_indices(dataset, 7), (std::vector<int64_t>{0, 1, 2, 3, 6, 7, 8}));
  EXPECT_EQ(balanced_indices(dataset, 100).size(), 9u);
  EXPECT_EQ(limit(std::make_unique<Skewed>(), 4)->size(), 4);
  EXPECT_EQ(limit(std::make_unique<Skewed>(), 0)->size(), 9);
}

TEST(Subset, ClassesAreNumberedAsInAnotherList) {
  const std::vector<std::string> names = {"one", "none", "many", "few"};
  const auto dataset = relabel(std::make_shared<Skewed>(), names);
  EXPECT_EQ(dataset->class_names(), names);
  EXPECT_EQ(dataset->label(0), 2);
  EXPECT_EQ(dataset->label(6), 3);
  EXPECT_EQ(dataset->label(8), 0);
  EXPECT_EQ(dataset->name(8), "8");
  EXPECT_THROW(relabel(std::make_shared<Skewed>(), {"one", "many"}), InputError);
}

TEST(Subset, HoldsOutAShareOfEveryClass) {
  const CountingDataset dataset(300, 2, 1);
  const IndexSplit split = holdout_indices(dataset, 0.2, 5);
  std::vector<int64_t> all(split.kept), counts(3), expected(300);
  all.insert(all.end(), split.held_out.begin(), split.held_out.end());
  std::sort(all.begin(), all.end());
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(all, expected);
  for (const int64_t i : split.held_out) ++counts[static_cast<size_t>(dataset.label(i))];
  EXPECT_EQ(counts, std::vector<int64_t>(3, 20));
  EXPECT_EQ(holdout_indices(dataset, 0.2, 5).held_out, split.held_out);
  EXPECT_NE(holdout_indices(dataset, 0.2, 6).held_out, split.held_out);
}

TEST(Subset, HoldoutLeavesEveryClassAnImage) {
  const IndexSplit split = holdout_indices(Skewed(), 0.99, 1);
  EXPECT_EQ(split.kept.size(), 3u);
  EXPECT_EQ(split.kept.back(), 8);
}

}  // namespace
}  // namespace ermoe
