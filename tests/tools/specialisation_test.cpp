// Whether experts keep to regions: the figures by hand, and that the test of them is wrong as often as it says and not more.
#include "tools/specialisation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace ermoe {
namespace {

TEST(MutualInformation, IsThatOfATableByHand) {
  EXPECT_NEAR(mutual_information(std::vector<double>{5, 0, 0, 5}, 2), std::log(2), 1e-12);
  EXPECT_NEAR(mutual_information(std::vector<double>{1, 2, 2, 4}, 2), 0, 1e-12);
  EXPECT_NEAR(mutual_information(std::vector<double>{3, 1, 1, 3}, 2), 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-12);
  EXPECT_EQ(mutual_information(std::vector<double>{0, 0, 0, 0}, 2), 0);
}

TEST(PValue, CountsWhatIsSeenItself) {
  EXPECT_EQ(p_value(2, std::vector<double>{1, 2, 3}), 3.0 / 4);
  EXPECT_EQ(p_value(4, std::vector<double>{1, 2, 3}), 1.0 / 4);
}

TEST(Specialisation, SharesAreThoseOfTheSum) {
  // Two experts, three regions, two subjects.
  const std::vector<std::vector<double>> joints = {{1, 2, 0, 0, 1, 4}, {3, 0, 0, 1, 0, 4}};
  const Specialisation s = specialisation(joints, 2, 50, RngKey{1});
  ASSERT_EQ(s.cells.size(), 6u);
  EXPECT_NEAR(s.cells[0].share, 4.0 / 6, 1e-12);
  EXPECT_NEAR(s.cells[5].share, 8.0 / 10, 1e-12);
  EXPECT_NEAR(s.cells[0].region_share, 5.0 / 16, 1e-12);
  EXPECT_NEAR(s.cells[0].ratio(), (4.0 / 6) / (5.0 / 16), 1e-12);
  EXPECT_NEAR(s.information, mutual_information(std::vector<double>{4, 2, 0, 1, 1, 8}, 2), 1e-12);
  EXPECT_EQ(s.null.size(), 50u);
}

TEST(Specialisation, PartsKeepRowsAndColumns) {
  EXPECT_EQ(parts_of({{1, 2, 3, 4, 5, 6}}, {false, true}, {true, false, true}), (std::vector<std::vector<double>>{{4, 6}}));
}

/// A subject's patches: each of 64 goes to one expert and lies in one of three regions. `habit`: how much more an expert likes the
/// region of its number; loads and regions' sizes are uneven and vary from subject to subject.
std::vector<double> subject(RngKey key, double habit, std::span<const double> loads) {
  constexpr uint64_t patches = 64;
  const size_t E = loads.size(), R = 3;
  std::vector<double> joint(E * R), size(R);
  for (size_t r = 0; r < R; ++r) size[r] = (r == 0 ? 3.0 : 1.0) * std::exp(0.3 * normal(key.fold(1), r));
  for (uint64_t p = 0; p < patches; ++p) {
    double at = uniform(key.fold(2), p) * (size[0] + size[1] + size[2]);
    size_t r = 0;
    while (r + 1 < R && at >= size[r]) at -= size[r++];
    double all = 0;
    std::vector<double> liking;
    for (size_t e = 0; e < E; ++e) all += liking.emplace_back(loads[e] * (e % R == r ? 1 + habit : 1));
    at = uniform(key.fold(3), p) * all;
    size_t e = 0;
    while (e + 1 < E && at >= liking[e]) at -= liking[e++];
    // Patches of one image depend on each other: three neighbours follow the first.
    for (uint64_t neighbour = 0; neighbour < 3 && neighbour + p + 1 < patches; ++neighbour, ++p) joint[e * R + r] += 1;
    joint[e * R + r] += 1;
  }
  return joint;
}

std::vector<std::vector<double>> study(uint64_t seed, double habit, std::span<const double> loads, uint64_t subjects = 20) {
  std::vector<std::vector<double>> joints;
  for (uint64_t i = 0; i < subjects; ++i) joints.push_back(subject(RngKey{seed}.fold(i), habit, loads));
  return joints;
}

constexpr std::array<double, 4> kEven = {1, 1, 1, 1}, kUneven = {8, 4, 1, 0.5};

TEST(Specialisation, AHabitIsFound) {
  for (const std::span<const double> loads : {std::span<const double>(kEven), std::span<const double>(kUneven)}) {
    const Specialisation s = specialisation(study(1, 2, loads), 4, 999, RngKey{2});
    EXPECT_EQ(p_value(s.information, s.null), 0.001);
    EXPECT_GT(s.information, 3 * mean_of(s.null));
    EXPECT_LT(s.cells[0].p, 0.01);  // expert 0, region 0
    EXPECT_GT(s.cells[0].ratio(), 1);
    EXPECT_GT(s.cells[3].p, 0.99);  // expert 1, region 0, which it takes less of
  }
}

/// Share of 400 studies without any habit whose p is at most `level`.
struct Rejections {
  double of_information = 0, of_cells = 0;
};
Rejections rejections(std::span<const double> loads, double level) {
  constexpr uint64_t studies = 400;
  Rejections r;
  for (uint64_t i = 0; i < studies; ++i) {
    const Specialisation s = specialisation(study(100 + i, 0, loads), 4, 99, RngKey{i});
    r.of_information += (p_value(s.information, s.null) <= level) / static_cast<double>(studies);
    for (const ExpertRegion& cell : s.cells) r.of_cells += (cell.p <= level) / static_cast<double>(studies * s.cells.size());
  }
  return r;
}

// The standard error of a share of 0.05 is 0.011, of 0.5 it is 0.025; three of them are let pass.
TEST(Specialisation, ChanceIsTakenForAHabitAsOftenAsPSays) {
  for (const std::span<const double> loads : {std::span<const double>(kEven), std::span<const double>(kUneven)}) {
    EXPECT_NEAR(rejections(loads, 0.05).of_information, 0.05, 0.033);
    EXPECT_NEAR(rejections(loads, 0.5).of_information, 0.5, 0.075);
    EXPECT_NEAR(rejections(loads, 0.05).of_cells, 0.05, 0.033);
  }
}

TEST(Specialisation, IsTheSameForOneKey) {
  const auto joints = study(5, 0.3, kEven);
  EXPECT_EQ(specialisation(joints, 4, 20, RngKey{3}).null, specialisation(joints, 4, 20, RngKey{3}).null);
  EXPECT_NE(specialisation(joints, 4, 20, RngKey{3}).null, specialisation(joints, 4, 20, RngKey{4}).null);
}

}  // namespace
}  // namespace ermoe
