// What a prediction rests on, by region: the shares by hand, and whether p is what it says for maps that are smooth by themselves.
#include "tools/attribution.h"

#include "tools/smooth_maps.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

TEST(Attribution, SharesAreOfTheBrainAndTheBackgroundStandsApart) {
  // Two cubes of 2 x 2 x 2 voxels. The first holds 4 of label 1 and 4 of none, the second 2 of label 1 and 6 of label 5.
  Attribution a(CubeGrid{{4, 2, 2}, 2}, 4, {0, 1, 5});
  a.add(40, std::vector<double>{-1, 3}, std::vector<double>{4, 4, 0, 0, 2, 6}, std::vector<double>{1, -2, 5});
  a.add(60, std::vector<double>{1, 1}, std::vector<double>{4, 4, 0, 0, 2, 6}, std::vector<double>{1, 1, 5});
  const AttributionReport report = attribution_report(std::span(&a, 1), {5}, 20, RngKey{1});
  ASSERT_EQ(report.regions.size(), 2u);
  // |change|: 2 on the first cube, 4 on the second. Label 1: 4 * 2 + 2 * 4 = 16; label 5: 6 * 4 = 24; none: 4 * 2 = 8.
  EXPECT_EQ(report.regions[0].label, 1);
  EXPECT_NEAR(report.regions[0].share, 16.0 / 40, 1e-12);
  EXPECT_NEAR(report.regions[0].volume, 6.0 / 12, 1e-12);
  EXPECT_NEAR(report.regions[0].change, (4 * 0 + 2 * 4) / 12.0, 1e-12);
  EXPECT_NEAR(report.regions[1].share, 24.0 / 40, 1e-12);
  EXPECT_NEAR(report.background, 8.0 / 48, 1e-12);
  EXPECT_NEAR(report.regions[0].whole, 1.5, 1e-12);
  EXPECT_NEAR(report.regions[1].whole, 5, 1e-12);
  ASSERT_TRUE(report.planted.has_value());
  EXPECT_NEAR(report.planted->ratio(), (24.0 / 40) / (6.0 / 12), 1e-12);
}

TEST(Attribution, TheSlopeIsWhatMakesAPredictionFollowTheTruth) {
  // The prediction takes a tenth of a year a year from the first cube, four tenths from the second, and noise from the third.
  Attribution a(CubeGrid{{6, 2, 2}, 2}, 4, {0, 1, 2});
  for (const auto& [age, noise] : std::vector<std::pair<double, double>>{{20, 9}, {40, -9}, {60, -9}, {80, 9}})
    a.add(age, std::vector<double>{-0.1 * (age - 50), -0.4 * (age - 50), noise}, std::vector<double>{0, 8, 0, 0, 0, 8, 4, 4, 0},
          std::vector<double>(3));
  const std::vector<double> slopes = a.slopes();
  EXPECT_NEAR(slopes[0], 0.1, 1e-12);
  EXPECT_NEAR(slopes[1], 0.4, 1e-12);
  EXPECT_NEAR(slopes[2], 0, 1e-12);
  const AttributionReport report = attribution_report(std::span(&a, 1), {2}, 20, RngKey{1});
  EXPECT_NEAR(report.regions[0].slope_share, 0.2, 1e-12);
  EXPECT_NEAR(report.planted->slope_share, 0.8, 1e-12);
  EXPECT_NEAR(report.planted->slope_ratio(), 0.8 / (8.0 / 20), 1e-12);
  EXPECT_LT(report.planted->ratio(), report.planted->slope_ratio()) << "noise counts for the size alone";
}

TEST(Attribution, OfOneAgeThereIsNoSlope) {
  Attribution a(CubeGrid{{2, 2, 2}, 2}, 4, {1});
  for (const double change : {1.0, 2.0}) a.add(33.3, std::vector<double>{change}, std::vector<double>{8}, std::vector<double>{1});
  EXPECT_EQ(a.slopes(), std::vector<double>{0});
  EXPECT_EQ(attribution_report(std::span(&a, 1), {}, 20, RngKey{1}).regions[0].slope_share, 0);
}

TEST(Attribution, PartsOfDifferentWindowsAndLabelsAreAddedUp) {
  Attribution a(CubeGrid{{2, 2, 2}, 2}, 4, {1}), b(CubeGrid{{4, 2, 2}, 2}, 4, {1, 2});
  a.add(50, std::vector<double>{2}, std::vector<double>{8}, std::vector<double>{1});
  b.add(70, std::vector<double>{1, 3}, std::vector<double>{8, 0, 0, 8}, std::vector<double>{-2, 4});
  const std::vector<Attribution> parts = {a, b};
  const AttributionReport report = attribution_report(parts, {1, 2}, 20, RngKey{1});
  EXPECT_NEAR(report.regions[0].share, (16.0 + 8) / 48, 1e-12);
  EXPECT_NEAR(report.regions[0].volume, 16.0 / 24, 1e-12);
  EXPECT_NEAR(report.planted->share, 1, 1e-12);
  EXPECT_NEAR(report.planted->whole, 1.5 + 4, 1e-12);  // each the mean of the parts that know it
}

TEST(Attribution, WithoutMapsOfRegionsThereIsNothingToSay) {
  Attribution a(CubeGrid{{2, 2, 2}, 2}, 4, {});
  a.add(50, std::vector<double>{2}, {}, {});
  const AttributionReport report = attribution_report(std::span(&a, 1), {}, 20, RngKey{1});
  EXPECT_TRUE(report.regions.empty());
  EXPECT_FALSE(report.planted.has_value());
}

/// A ball of brain in a grid of 10 x 11 x 9 cubes; its front third is label 1, the rest label 2.
std::vector<double> ball(const CubeGrid& grid) {
  std::vector<double> voxels;
  for (int64_t cube = 0; cube < grid.count(); ++cube) {
    const Point3 at = grid.middle_of(cube);
    const bool brain = std::hypot(at[0], at[1], at[2]) < 9.5;
    voxels.insert(voxels.end(), {brain ? 0.0 : 8.0, brain && at[1] > 3 ? 8.0 : 0.0, brain && at[1] <= 3 ? 8.0 : 0.0});
  }
  return voxels;
}

/// A random smooth map, of that many cubes' length, on all cubes.
std::vector<double> random_map(const CubeGrid& grid, double length, RngKey key) {
  MapOnPlaces map(grid, 1);
  for (int64_t cube = 0; cube < grid.count(); ++cube) {
    map.cube.push_back(cube);
    map.value.push_back(std::exp(normal(RngKey{77}, static_cast<uint64_t>(cube))));
  }
  return surrogate_of(map, 2 * length, key);
}

double p_of(const CubeGrid& grid, const std::vector<double>& changes, RngKey key, int64_t draws) {
  Attribution a(grid, 1, {0, 1, 2});
  a.add(50, changes, ball(grid), std::vector<double>(3));
  return attribution_report(std::span(&a, 1), {1}, draws, key).planted->p;
}

constexpr CubeGrid kGrid{{20, 22, 18}, 2};

TEST(AttributionNull, APlaceThatMattersIsFound) {
  std::vector<double> changes = random_map(kGrid, 0.7, RngKey{4});
  for (int64_t cube = 0; cube < kGrid.count(); ++cube)
    if (kGrid.middle_of(cube)[1] > 3) changes[static_cast<size_t>(cube)] += 5;
  EXPECT_LE(p_of(kGrid, changes, RngKey{5}, 199), 0.01);
}

// Dealing the values out to places at random takes nearly a third of the smooth maps for findings at 0.05.
TEST(AttributionNull, MapsThatAreSmoothByThemselvesAreTakenForMoreAsOftenAsPSays) {
  constexpr int studies = 200;
  for (const double length : {0.3, 1.5, 2.5}) {
    double low = 0, high = 0;
    for (uint64_t i = 0; i < studies; ++i) {
      const double p = p_of(kGrid, random_map(kGrid, length, RngKey{900}.fold(i)), RngKey{i}, 19);
      low += (p <= 0.05) / static_cast<double>(studies);
      high += (p <= 0.5) / static_cast<double>(studies);
    }
    EXPECT_LE(low, 0.05 + 0.046) << length;  // three standard errors
    EXPECT_NEAR(high, 0.5, 0.106) << length;
  }
}

/// Four subjects, whose predictions follow their ages by `slopes` of each place.
RegionAttribution slopes_of(const CubeGrid& grid, const std::vector<double>& slopes, RngKey key, int64_t draws) {
  Attribution a(grid, 1, {0, 1, 2});
  for (const double age : {20.0, 40.0, 60.0, 80.0}) {
    std::vector<double> changes;
    for (const double slope : slopes) changes.push_back(-slope * (age - 50));
    a.add(age, changes, ball(grid), std::vector<double>(3));
  }
  return *attribution_report(std::span(&a, 1), {1}, draws, key).planted;
}

// Of maps with both signs the sum over the brain may come to anything: dividing each draw by its own would make p meaningless.
TEST(AttributionNull, SlopesOfBothSignsAreTakenForMoreAsOftenAsPSays) {
  constexpr int studies = 200;
  double low = 0, high = 0, told = 0;
  for (uint64_t i = 0; i < studies; ++i) {
    std::vector<double> slopes = random_map(kGrid, 1.5, RngKey{901}.fold(i));
    for (double& slope : slopes) slope -= 1;  // of a mean of about 1.6
    const RegionAttribution planted = slopes_of(kGrid, slopes, RngKey{i}, 19);
    if (planted.slope_share == 0) continue;
    told += 1;
    low += planted.slope_p <= 0.05 ? 1 : 0;
    high += planted.slope_p <= 0.5 ? 1 : 0;
  }
  ASSERT_GT(told, 150);
  EXPECT_LE(low / told, 0.05 + 0.053);
  EXPECT_NEAR(high / told, 0.5, 0.12);
}

TEST(AttributionNull, APlaceThatCarriesTheSlopeIsFound) {
  std::vector<double> slopes = random_map(kGrid, 0.7, RngKey{4});
  for (int64_t cube = 0; cube < kGrid.count(); ++cube)
    if (kGrid.middle_of(cube)[1] > 3) slopes[static_cast<size_t>(cube)] += 5;
  const RegionAttribution planted = slopes_of(kGrid, slopes, RngKey{5}, 199);
  EXPECT_LE(planted.slope_p, 0.01);
  EXPECT_GT(planted.slope_ratio(), 1.5);
}

TEST(SmoothMaps, TheLengthOfAFieldIsFoundAgain) {
  for (const double length : {0.8, 1.5, 2.5}) {
    double sum = 0;
    constexpr uint64_t fields = 20;
    for (uint64_t i = 0; i < fields; ++i) {
      MapOnPlaces map(kGrid, 1);
      map.value = random_map(kGrid, length, RngKey{50}.fold(i));
      for (int64_t cube = 0; cube < kGrid.count(); ++cube) map.cube.push_back(cube);
      sum += smoothness_of(std::span(&map, 1)) / fields;
    }
    EXPECT_NEAR(sum / 2, length, 0.35 * length);
  }
}

TEST(SmoothMaps, ASurrogateHasTheValuesAndDependsOnTheKeyAlone) {
  MapOnPlaces map(CubeGrid{{3, 1, 1}, 1}, 1);
  map.cube = {0, 1, 2};
  map.value = {5, 1, 9};
  std::vector<double> surrogate = surrogate_of(map, 1, RngKey{1});
  EXPECT_EQ(surrogate, surrogate_of(map, 1, RngKey{1}));
  std::ranges::sort(surrogate);
  EXPECT_EQ(surrogate, (std::vector<double>{1, 5, 9}));
}

}  // namespace
}  // namespace ermoe
