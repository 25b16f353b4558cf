// The rank and the expert that a row of the log names.
#include "tools/standouts.h"

#include <gtest/gtest.h>

#include <vector>

namespace ermoe {
namespace {

TEST(Standouts, TheMostLoadedExpertOfAllLayers) {
  StepLoad load;
  EXPECT_EQ(load.expert, -1);
  load.add(1, std::vector<double>{0, 0, 0});
  EXPECT_EQ(load.block, -1) << "nothing was routed there";
  EXPECT_EQ(load.max_over_mean, 0);
  load.add(3, std::vector<double>{10, 10, 20, 0});
  EXPECT_EQ(load.block, 3);
  EXPECT_EQ(load.expert, 2);
  EXPECT_DOUBLE_EQ(load.max_over_mean, 2);
  const double gini = load.gini;
  load.add(5, std::vector<double>{40, 35});
  EXPECT_EQ(load.block, 3) << "many tokens, and not many more than the mean";
  EXPECT_EQ(load.expert, 2);
  EXPECT_EQ(load.gini, gini);
  load.add(7, std::vector<double>{0, 0, 0, 0, 1});
  EXPECT_EQ(load.block, 7);
  EXPECT_EQ(load.expert, 4);
  EXPECT_DOUBLE_EQ(load.max_over_mean, 5);
  EXPECT_GT(load.gini, gini);
}

TEST(Standouts, TheSlowestRank) {
  const SlowestRank one = slowest_rank(std::vector<double>{1.0, 1.0, 3.0, 1.0});
  EXPECT_EQ(one.rank, 2);
  EXPECT_DOUBLE_EQ(one.over_mean, 2);
  const SlowestRank equal = slowest_rank(std::vector<double>{2.0, 2.0});
  EXPECT_EQ(equal.rank, 0);
  EXPECT_DOUBLE_EQ(equal.over_mean, 1);
  const SlowestRank idle = slowest_rank(std::vector<double>{0.0, 0.0, 0.0});
  EXPECT_EQ(idle.rank, 0);
  EXPECT_DOUBLE_EQ(idle.over_mean, 1);
}

}  // namespace
}  // namespace ermoe
