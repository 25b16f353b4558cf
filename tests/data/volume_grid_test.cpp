// Axes, resampling, windows: what lies where in the world must stay there.
#include "data/volume_grid.h"

#include "core/error.h"
#include "tests/data/nifti_files.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

using Size = std::array<int64_t, 3>;

Volume made(const Size& size, const Affine& world, const std::function<double(const Point3&)>& value) {
  Volume volume{{size, world}, {}};
  for (int64_t k = 0; k < size[2]; ++k)
    for (int64_t j = 0; j < size[1]; ++j)
      for (int64_t i = 0; i < size[0]; ++i)
        volume.values.push_back(static_cast<float>(value(world({static_cast<double>(i), static_cast<double>(j), static_cast<double>(k)}))));
  return volume;
}

/// Calls `body` for every voxel with its place in the world.
void each(const Volume& volume, const std::function<void(const Point3&, float)>& body) {
  for (int64_t k = 0; k < volume.grid.size[2]; ++k)
    for (int64_t j = 0; j < volume.grid.size[1]; ++j)
      for (int64_t i = 0; i < volume.grid.size[0]; ++i)
        body(volume.grid.to_world({static_cast<double>(i), static_cast<double>(j), static_cast<double>(k)}), volume.at(i, j, k));
}

double plane(const Point3& x) { return 100 + 2 * x[0] - 3 * x[1] + 0.5 * x[2]; }

const Affine psr{{{{0, 0, 2, -40}, {-2, 0, 0, 60}, {0, 2, 0, -50}}}};

TEST(ToRas, KeepsEveryVoxelWhereItIs) {
  std::mt19937 random(1);
  for (int n = 0; n < 200; ++n) {
    const Volume volume = made({4, 3, 5}, random_affine(random, 0.4), plane);
    const Volume ras = to_ras(volume);
    EXPECT_EQ(orientation_text(ras.grid), "RAS") << orientation_text(volume.grid);
    EXPECT_EQ(ras.grid, to_ras(volume.grid));
    each(ras, [](const Point3& x, float v) { EXPECT_NEAR(v, plane(x), 1e-4); });
    auto before = volume.values, after = ras.values;
    std::ranges::sort(before);
    std::ranges::sort(after);
    EXPECT_EQ(before, after);
    EXPECT_EQ(to_ras(ras).values, ras.values);
  }
}

TEST(ToRas, NamesAxes) {
  const Grid grid{{4, 3, 5}, psr};
  EXPECT_EQ(orientation_text(grid), "PSR");
  const Grid ras = to_ras(grid);
  EXPECT_EQ(ras.size, (Size{5, 4, 3}));
  EXPECT_EQ(ras.to_world, (Affine{{{{2, 0, 0, -40}, {0, 2, 0, 54}, {0, 0, 2, -50}}}}));
}

TEST(Resample, OntoItsOwnGridCopies) {
  std::mt19937 random(2);
  for (int n = 0; n < 20; ++n) {
    Volume volume = made({4, 3, 5}, random_affine(random, 0.4), [&](const Point3&) { return static_cast<double>(random()); });
    volume.values[7] = std::nanf("");
    for (const Interpolation how : {Interpolation::linear, Interpolation::nearest}) {
      const Volume same = resample(volume, volume.grid, how, -1);
      for (size_t i = 0; i < volume.values.size(); ++i)
        if (i != 7) {
          EXPECT_EQ(same.values[i], volume.values[i]) << i;
        }
      EXPECT_TRUE(std::isnan(same.values[7]));
    }
    // Onto the same lattice in another order of axes too.
    const Volume ras = resample(volume, to_ras(volume.grid), Interpolation::linear);
    const Volume moved = to_ras(volume);
    for (size_t i = 0; i < ras.values.size(); ++i)
      if (!std::isnan(moved.values[i])) {
        EXPECT_EQ(ras.values[i], moved.values[i]);
      }
  }
}

TEST(Resample, IsExactOnPlanesInside) {
  std::mt19937 random(3);
  Affine fine;  // 1 mm
  const Volume volume = made({30, 30, 30}, fine, plane);
  for (int n = 0; n < 20; ++n) {
    Grid turned{{6, 6, 6}, random_affine(random, 0)};
    const Point3 mm = turned.spacing();
    for (auto& row : turned.to_world.rows)
      for (size_t c = 0; c < 3; ++c) row[c] /= mm[c];
    for (auto& row : turned.to_world.rows) row[3] = 14.5 - 2.5 * (row[0] + row[1] + row[2]);
    each(resample(volume, turned, Interpolation::linear), [](const Point3& x, float v) { EXPECT_NEAR(v, plane(x), 1e-3); });
    each(resample(volume, turned, Interpolation::nearest), [](const Point3& x, float v) {
      EXPECT_FLOAT_EQ(v, static_cast<float>(plane({std::round(x[0]), std::round(x[1]), std::round(x[2])})));
    });
  }
}

TEST(Resample, ReachesHalfAVoxelBeyondTheOutermost) {
  const Volume volume = made({2, 1, 1}, {}, [](const Point3& x) { return 5 + x[0]; });
  Grid line{{1, 1, 1}, {}};
  for (const auto& [x, expected] : {std::pair{-0.51, -1.0}, {-0.49, 5.0}, {0.25, 5.25}, {1.49, 6.0}, {1.51, -1.0}}) {
    line.to_world.rows[0][3] = x;
    EXPECT_FLOAT_EQ(resample(volume, line, Interpolation::linear, -1).values[0], static_cast<float>(expected)) << x;
    line.to_world.rows[1][3] = 0.51;
    EXPECT_EQ(resample(volume, line, Interpolation::linear, -1).values[0], -1);
    line.to_world.rows[1][3] = 0;
  }
}

TEST(Resample, SmoothsBeforeItTakesFewerVoxels) {
  // Stripes finer than the new voxels must not turn into coarse ones.
  const Volume stripes = made({64, 8, 8}, {}, [](const Point3& x) { return std::cos(2 * M_PI * x[0] / 2.2); });
  const Volume coarse = resample(stripes, grid_with_spacing(stripes.grid, 4), Interpolation::linear);
  each(coarse, [](const Point3& x, float v) {
    // At an end half of the Gaussian is missing.
    EXPECT_LT(std::abs(v), x[0] > 7 && x[0] < 56 ? 0.001 : 0.1);
  });
  // Waves that the new grid can hold stay.
  const Volume waves = made({64, 8, 8}, {}, [](const Point3& x) { return std::cos(2 * M_PI * x[0] / 32); });
  const Volume kept = resample(waves, grid_with_spacing(waves.grid, 2), Interpolation::linear);
  each(kept, [](const Point3& x, float v) {
    if (x[0] > 4 && x[0] < 58) {
      EXPECT_NEAR(v, std::cos(2 * M_PI * x[0] / 32), 0.05);
    }
  });
  // Labels are never mixed.
  const Volume labels = made({16, 16, 16}, {}, [](const Point3& x) { return x[0] < 7 ? 3 : 11; });
  for (const float v : resample(labels, grid_with_spacing(labels.grid, 4), Interpolation::nearest).values) EXPECT_TRUE(v == 3 || v == 11);
}

TEST(Smooth, SpreadsAPointAsAGaussianAndKeepsConstants) {
  const Volume flat = made({9, 8, 7}, {}, [](const Point3&) { return 2; });
  for (const float v : smooth(flat, {1.5, 0, 3}).values) EXPECT_NEAR(v, 2, 1e-5);
  const Volume point = made({41, 41, 41}, {}, [](const Point3& x) { return x == Point3{20, 20, 20} ? 1 : 0; });
  const Point3 sigma{1, 2, 3};
  double sum = 0;
  Point3 variance{};
  each(smooth(point, sigma), [&](const Point3& x, float v) {
    sum += v;
    for (size_t a = 0; a < 3; ++a) variance[a] += v * (x[a] - 20) * (x[a] - 20);
  });
  EXPECT_NEAR(sum, 1, 1e-4);
  for (size_t a = 0; a < 3; ++a) EXPECT_NEAR(variance[a], sigma[a] * sigma[a], 0.02 * sigma[a] * sigma[a]) << a;
}

TEST(GridWithSpacing, CoversTheSameSpace) {
  const Grid grid{{10, 9, 7}, psr};
  const Grid finer = grid_with_spacing(grid, 1);
  EXPECT_EQ(finer.size, (Size{20, 18, 14}));
  EXPECT_EQ(finer.to_world.rows[1][3], 60.5);  // half an old voxel, less half a new one, towards the front
  const Grid coarser = grid_with_spacing(grid, 3);
  EXPECT_EQ(coarser.size, (Size{7, 6, 5}));
  const Point3 middle = grid.to_world({4.5, 4, 3}), kept = coarser.to_world({3, 2.5, 2});
  for (size_t a = 0; a < 3; ++a) EXPECT_NEAR(kept[a], middle[a], 1e-12);
  EXPECT_TRUE(same_grid(grid_with_spacing(grid, 2), grid, 1e-9));
}

TEST(CropOrPad, LaysAWindowAroundTheBrain) {
  // A box of 3 x 2 x 1 voxels, and one bright voxel that draws the centre of mass.
  const Volume volume = made({9, 8, 7}, psr, [&](const Point3& x) {
    const Point3 p = psr.inverse()(x);
    const bool box = p[0] > 1.5 && p[0] < 4.5 && p[1] > 4.5 && p[1] < 6.5 && std::abs(p[2] - 1) < 0.5;
    return box ? 10 + p[0] : 0;
  });
  EXPECT_EQ(middle_of(volume, Middle::box), (Point3{3, 5.5, 1}));
  EXPECT_EQ(middle_of(volume, Middle::mass), (Point3{3, 5.5, 1}));
  EXPECT_EQ(middle_of(volume, Middle::mass, 13.5), (Point3{4, 5.5, 1}));
  EXPECT_EQ(middle_of(volume, Middle::box, 100), (Point3{4, 3.5, 3}));
  const Volume cut = crop_or_pad(volume, {3, 2, 1}, Middle::box);
  EXPECT_EQ(cut.values, (std::vector<float>{12, 13, 14, 12, 13, 14}));
  const Volume wide = crop_or_pad(volume, {15, 20, 5}, Middle::box);
  EXPECT_EQ(wide.grid.size, (Size{15, 20, 5}));
  EXPECT_EQ(std::ranges::count(wide.values, 0.0f), 15 * 20 * 5 - 6);
  EXPECT_NEAR(wide.at(7, 9, 2), 13, 1e-6);
  // A window says where it lies, so resampling onto it finds the same.
  EXPECT_EQ(resample(volume, wide.grid, Interpolation::linear).values, wide.values);
  EXPECT_THROW(crop_or_pad(volume, grid_with_spacing(volume.grid, 1)), Error);
}

TEST(SameGrid, SeesSizeAndPlace) {
  const Grid grid{{10, 9, 7}, psr};
  Grid other = grid;
  EXPECT_TRUE(same_grid(grid, other));
  other.to_world.rows[0][3] += 0.02;
  EXPECT_FALSE(same_grid(grid, other));
  other = grid;
  other.to_world.rows[0][0] += 0.002;  // 0.018 mm at the far end
  EXPECT_FALSE(same_grid(grid, other));
  EXPECT_FALSE(same_grid(grid, {{9, 10, 7}, psr}));
}

}  // namespace
}  // namespace ermoe::testing
