// The permutation is one, the ranks share an epoch without overlap, and any step can be had directly.
#include "data/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

namespace ermoe {
namespace {

SamplerOptions options_of(int64_t batch, int rank = 0, int world = 1, Mode mode = Mode::train, uint64_t seed = 7) {
  return {seed, rank, world, batch, mode};
}

TEST(Permutation, IsABijectionAtEverySize) {
  for (int64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 100, 1000, 4097}) {
    const Permutation order(n, RngKey{42}.fold(static_cast<uint64_t>(n)));
    std::set<int64_t> seen;
    for (int64_t i = 0; i < n; ++i) seen.insert(order(i));
    EXPECT_EQ(static_cast<int64_t>(seen.size()), n);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), n - 1);
  }
}

TEST(Permutation, SendsEveryPlaceEverywhereEvenly) {
  // Over many keys each of n images of a place is expected `keys / n` times; chi-square with (n - 1) degrees of freedom.
  constexpr int64_t n = 11, keys = 4400;
  for (int64_t place : {0, 5, 10}) {
    std::vector<int64_t> counts(n);
    for (int64_t k = 0; k < keys; ++k) ++counts[static_cast<size_t>(Permutation(n, RngKey{3}.fold(static_cast<uint64_t>(k)))(place))];
    double chi2 = 0;
    for (const int64_t c : counts) chi2 += std::pow(static_cast<double>(c) - keys / n, 2) / (keys / n);
    EXPECT_LT(chi2, 35.6);  // 0.01 % quantile
  }
}

TEST(Permutation, LeavesNoOrderBehind) {
  // Neighbours of a random order are n/3 apart on average, with standard deviation about n / sqrt(18 n) of the mean.
  constexpr int64_t n = 50000;
  const Permutation order(n, RngKey{1});
  double distance = 0;
  for (int64_t i = 0; i + 1 < n; ++i) distance += std::abs(static_cast<double>(order(i + 1) - order(i)));
  EXPECT_NEAR(distance / (n - 1) / n, 1.0 / 3, 0.006);
}

TEST(Sampler, RanksShareAnEpochWithoutOverlap) {
  constexpr int64_t size = 103, batch = 4;
  constexpr int world = 3;
  std::set<int64_t> seen;
  int64_t drawn = 0;
  for (int rank = 0; rank < world; ++rank) {
    const Sampler sampler(size, options_of(batch * world, rank, world));
    ASSERT_EQ(sampler.steps_per_epoch(), size / (batch * world));
    for (int64_t s = 0; s < sampler.steps_per_epoch(); ++s) {
      const auto indices = sampler.indices({5, s});
      EXPECT_EQ(static_cast<int64_t>(indices.size()), batch);
      drawn += static_cast<int64_t>(indices.size());
      seen.insert(indices.begin(), indices.end());
    }
  }
  EXPECT_EQ(drawn, 96);
  EXPECT_EQ(static_cast<int64_t>(seen.size()), drawn);
  EXPECT_GE(*seen.begin(), 0);
  EXPECT_LT(*seen.rbegin(), size);
}

TEST(Sampler, WholeEpochIsCoveredWhereNothingIsDropped) {
  std::set<int64_t> seen;
  for (int rank = 0; rank < 4; ++rank) {
    const Sampler sampler(96, options_of(32, rank, 4));
    for (int64_t s = 0; s < sampler.steps_per_epoch(); ++s) {
      for (const int64_t i : sampler.indices({0, s})) EXPECT_TRUE(seen.insert(i).second);
    }
  }
  EXPECT_EQ(seen.size(), 96u);
}

TEST(Sampler, EvaluationCoversEverySampleOnce) {
  for (int64_t size : {1, 2, 7, 24, 25, 26, 47}) {
    std::multiset<int64_t> seen;
    std::set<int64_t> step_counts;
    for (int rank = 0; rank < 3; ++rank) {
      const Sampler sampler(size, options_of(12, rank, 3, Mode::eval));
      step_counts.insert(sampler.steps_per_epoch());
      for (int64_t s = 0; s < sampler.steps_per_epoch(); ++s) {
        const auto indices = sampler.indices({0, s});
        EXPECT_LE(indices.size(), 4u);
        seen.insert(indices.begin(), indices.end());
      }
    }
    std::vector<int64_t> all(static_cast<size_t>(size));
    std::iota(all.begin(), all.end(), 0);
    EXPECT_TRUE(std::equal(seen.begin(), seen.end(), all.begin(), all.end())) << size;
    EXPECT_EQ(step_counts.size(), 1u) << "ranks would wait for each other";
  }
}

TEST(Sampler, BatchDoesNotDependOnTheRanksThatShareIt) {
  const auto batch = [](int world, Cursor at) {
    std::vector<int64_t> all;
    for (int rank = 0; rank < world; ++rank) {
      const Sampler sampler(200, options_of(14, rank, world));
      const BatchPart part = sampler.part(at);
      EXPECT_EQ(part.first, static_cast<int64_t>(all.size()));
      EXPECT_EQ(part.total, 14);
      const auto indices = sampler.indices(at);
      EXPECT_EQ(part.count, static_cast<int64_t>(indices.size()));
      EXPECT_LE(std::abs(part.count * world - 14), world);  // as even as can be
      all.insert(all.end(), indices.begin(), indices.end());
    }
    return all;
  };
  for (int world : {2, 3, 4, 14}) EXPECT_EQ(batch(1, {2, 3}), batch(world, {2, 3})) << world;
}

TEST(Sampler, EpochsAndSeedsDiffer) {
  const Sampler sampler(1000, options_of(50)), other(1000, options_of(50, 0, 1, Mode::train, 8));
  EXPECT_EQ(sampler.indices({3, 4}), sampler.indices({3, 4}));
  EXPECT_NE(sampler.indices({3, 4}), sampler.indices({4, 4}));
  EXPECT_NE(sampler.indices({3, 4}), other.indices({3, 4}));
}

TEST(Sampler, CursorGoesOverTheEndOfAnEpoch) {
  const Sampler sampler(10, options_of(3));
  EXPECT_EQ(sampler.after({0, 1}), (Cursor{0, 2}));
  EXPECT_EQ(sampler.after({0, 2}), (Cursor{1, 0}));
}

TEST(Sampler, RefusesWhatCannotWork) {
  EXPECT_THROW(Sampler(10, options_of(11)), InputError);
  EXPECT_THROW(Sampler(10, options_of(2, 0, 3)), InputError);  // a rank would have nothing
  EXPECT_NO_THROW(Sampler(10, options_of(2, 0, 3, Mode::eval)));
  EXPECT_THROW(Sampler(10, options_of(0)), InputError);
  EXPECT_THROW(Sampler(10, options_of(1, 2, 2)), Error);
  EXPECT_THROW(Sampler(10, options_of(3)).indices({0, 3}), Error);
}

}  // namespace
}  // namespace ermoe
