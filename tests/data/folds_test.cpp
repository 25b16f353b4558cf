// Folds: alike in age, subjects whole, the same every time.
#include "data/folds.h"

#include "core/error.h"
#include "core/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>

namespace ermoe {
namespace {

struct Study {
  std::vector<double> ages;
  std::vector<std::string> names;
};

/// `people` subjects of random ages, most with one sample, some with two or three, in a random order.
Study random_study(int people, uint64_t seed) {
  const RngKey key{seed};
  std::vector<std::pair<double, std::string>> samples;
  for (int i = 0; i < people; ++i) {
    const double age = 20 + 60 * uniform(key, static_cast<uint64_t>(i));
    const uint64_t visits =
        1 + uniform_int(key.fold(1), static_cast<uint64_t>(i), 5) / 3 * uniform_int(key.fold(2), static_cast<uint64_t>(i), 3);
    for (uint64_t v = 0; v < visits; ++v) samples.push_back({age + static_cast<double>(v), "p" + std::to_string(i)});
  }
  Study study;
  for (size_t n = samples.size(); n > 0; --n) {
    std::swap(samples[n - 1], samples[uniform_int(key.fold(3), n, n)]);
    study.ages.push_back(samples[n - 1].first);
    study.names.push_back(samples[n - 1].second);
  }
  return study;
}

TEST(StratifiedFolds, SubjectsStayWholeAndAgesAreSpread) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const int k = 2 + static_cast<int>(seed % 9), people = k + static_cast<int>(uniform_int({seed}, 99, 150));
    const Study study = random_study(people, seed);
    const std::vector<int> folds = stratified_folds(study.ages, study.names, k, seed);
    ASSERT_EQ(folds.size(), study.ages.size());
    std::map<std::string, int> fold_of;
    std::map<std::string, std::vector<double>> ages;
    for (size_t i = 0; i < folds.size(); ++i) {
      ASSERT_TRUE(folds[i] >= 0 && folds[i] < k);
      EXPECT_EQ(fold_of.try_emplace(study.names[i], folds[i]).first->second, folds[i]) << study.names[i];
      ages[study.names[i]].push_back(study.ages[i]);
    }
    // By age, each k subjects in a row have each fold once: any range of ages is shared out to within one subject at each of its ends.
    std::vector<std::pair<double, int>> order;
    for (auto& [name, list] : ages) {
      double total = 0;
      for (const double age : list) total += age;
      order.push_back({total / static_cast<double>(list.size()), fold_of[name]});
    }
    std::sort(order.begin(), order.end());
    for (size_t block = 0; block < order.size(); block += static_cast<size_t>(k)) {
      std::set<int> here;
      const size_t end = std::min(order.size(), block + static_cast<size_t>(k));
      for (size_t i = block; i < end; ++i) here.insert(order[i].second);
      EXPECT_EQ(here.size(), end - block) << "seed " << seed << ", block at " << block;
    }
  }
}

TEST(StratifiedFolds, DependOnTheSeedAndNotOnTheOrder) {
  const Study study = random_study(60, 7);
  const std::vector<int> folds = stratified_folds(study.ages, study.names, 5, 3);
  EXPECT_EQ(stratified_folds(study.ages, study.names, 5, 3), folds);
  EXPECT_NE(stratified_folds(study.ages, study.names, 5, 4), folds);
  Study reversed = study;
  std::ranges::reverse(reversed.ages);
  std::ranges::reverse(reversed.names);
  std::vector<int> back = stratified_folds(reversed.ages, reversed.names, 5, 3);
  std::ranges::reverse(back);
  EXPECT_EQ(back, folds);
}

TEST(StratifiedFolds, EverySubjectGetsEveryFoldAsOften) {
  const std::vector<double> ages{30, 40, 50, 60, 70, 80, 90};
  const std::vector<std::string> names{"a", "b", "c", "d", "e", "f", "g"};
  constexpr int seeds = 4000, k = 4;
  std::vector<std::vector<int>> counts(ages.size(), std::vector<int>(k));
  for (uint64_t seed = 0; seed < seeds; ++seed) {
    const std::vector<int> folds = stratified_folds(ages, names, k, seed);
    for (size_t i = 0; i < folds.size(); ++i) ++counts[i][static_cast<size_t>(folds[i])];
  }
  // 1000 each, with a standard deviation of 27.
  for (const auto& row : counts)
    for (const int count : row) EXPECT_NEAR(count, seeds / k, 150);
}

TEST(StratifiedFolds, EqualAgesAreNoTrouble) {
  const std::vector<double> ages(10, 42.0);
  std::vector<std::string> names;
  for (int i = 0; i < 10; ++i) names.push_back(std::to_string(i));
  const std::vector<int> folds = stratified_folds(ages, names, 5, 0);
  for (int f = 0; f < 5; ++f) EXPECT_EQ(std::ranges::count(folds, f), 2);
}

TEST(StratifiedFolds, Refusals) {
  const std::vector<double> ages{30, 40, 41};
  const std::vector<std::string> names{"a", "b", "b"};
  EXPECT_THROW(stratified_folds(ages, names, 1, 0), InputError);
  EXPECT_THROW(stratified_folds(ages, names, 3, 0), InputError) << "two subjects, three folds";
  EXPECT_EQ(stratified_folds(ages, names, 2, 0).size(), 3u);
  EXPECT_THROW(stratified_folds({}, {}, 2, 0), InputError);
  EXPECT_THROW(stratified_folds(ages, std::vector<std::string>{"a"}, 2, 0), Error);
  EXPECT_THROW(stratified_folds(std::vector<double>{1, std::numeric_limits<double>::quiet_NaN(), 2}, names, 2, 0), Error);
}

}  // namespace
}  // namespace ermoe
