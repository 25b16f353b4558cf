// Ranking by cosine: best first, ties in order, whatever else is around.
#include "tools/nearest.h"

#include "core/error.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace ermoe {
namespace {

class Nearest : public ::testing::Test {
 protected:
  Tensor rows(const std::vector<float>& values, int64_t width) {
    return Tensor::from<float>(allocator_, {std::ssize(values) / width, width}, values);
  }
  static std::vector<int64_t> indices(const std::vector<Match>& matches) {
    std::vector<int64_t> all;
    for (const Match& m : matches) all.push_back(m.index);
    return all;
  }
  CachingAllocator allocator_{make_host_source()};
};

TEST_F(Nearest, BestFirstAndNoMoreThanAsked) {
  const auto found = nearest(rows({1, 0, 0, 1}, 2), rows({0, 1, 0.6f, 0.8f, 1, 0, -1, 0}, 2), 3);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(indices(found[0]), (std::vector<int64_t>{2, 1, 0}));
  EXPECT_EQ(indices(found[1]), (std::vector<int64_t>{0, 1, 2})) << "2 and 3 tie at 0";
  EXPECT_FLOAT_EQ(found[0][1].score, 0.6f);
  EXPECT_EQ(nearest(rows({1, 0}, 2), rows({0, 1}, 2), 9)[0].size(), 1u);
}

TEST_F(Nearest, WithoutCandidatesNothingIsFound) {
  const auto found = nearest(rows({1, 0}, 2), Tensor::empty(allocator_, {0, 2}, DType::f32), 3);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_TRUE(found[0].empty());
}

TEST_F(Nearest, EqualRowsTieWhereverTheyStand) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  constexpr int64_t width = 37, n = 101;
  std::vector<float> query, row, all;
  for (int64_t p = 0; p < width; ++p) query.push_back(normal(random)), row.push_back(normal(random));
  for (int64_t i = 0; i < n; ++i) all.insert(all.end(), row.begin(), row.end());
  const auto found = nearest(rows(query, width), rows(all, width), n)[0];
  for (int64_t i = 0; i < n; ++i) {
    EXPECT_EQ(found[static_cast<size_t>(i)].index, i);
    EXPECT_EQ(found[static_cast<size_t>(i)].score, found[0].score);
  }
}

TEST_F(Nearest, WhatIsNoNumberIsLast) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto found = nearest(rows({1, 0}, 2), rows({nan, 0, -1, 0, nan, nan, 1, 0}, 2), 4)[0];
  EXPECT_EQ(indices(found), (std::vector<int64_t>{3, 1, 0, 2}));
  EXPECT_TRUE(std::isnan(found[2].score));
}

TEST_F(Nearest, ShapesMustFit) {
  EXPECT_THROW(nearest(rows({1, 0}, 2), rows({1, 0, 0}, 3), 1), Error);
  EXPECT_THROW(nearest(rows({1, 0}, 2), Tensor(), 1), Error);
}

}  // namespace
}  // namespace ermoe
