#include "data/align.h"

#include "core/error.h"
#include "data/align_measure.h"
#include "data/volume_grid.h"
#include "tests/data/align_trials.h"
#include "tests/data/head_phantom.h"
#include "tests/sanitizers.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <limits>

namespace ermoe {
namespace {

using namespace testing;

constexpr double kNoise = 0.05;
const Point3 kMiddle = {0, 0, 0};

AlignOptions rigid_by(AlignMeasure measure) { return {AlignModel::rigid, measure, {8, 4}}; }

Miss trial(const Volume& fixed, uint64_t number, double degrees, double mm, Contrast contrast, const AlignOptions& options) {
  const RngKey key = RngKey{11}.fold(number);
  const Affine truth = random_rigid(key, kMiddle, degrees, mm);
  Volume moving = moved(fixed, truth.inverse());
  disturb(moving, key.fold(1), contrast, kNoise);
  return miss_of(align(moving, fixed, options).to_moving, truth, fixed);
}

TEST(Align, FindsRigidTransformsThroughNoiseBiasFieldAndOtherContrasts) {
  const Volume fixed = head_phantom();
  uint64_t number = 0;
  for (const Contrast contrast : {Contrast::same, Contrast::gamma, Contrast::inverted, Contrast::folded}) {
    const Miss miss = trial(fixed, number++, 15, 15, contrast, rigid_by(AlignMeasure::mutual_information));
    EXPECT_LT(miss.mm, 1) << "contrast " << static_cast<int>(contrast);
    EXPECT_LT(miss.degrees, 1) << "contrast " << static_cast<int>(contrast);
    if (sanitized) break;
  }
  for (const Contrast contrast : {Contrast::same, Contrast::gamma}) {
    const Miss miss = trial(fixed, number++, 15, 15, contrast, rigid_by(AlignMeasure::correlation));
    EXPECT_LT(miss.mm, 1) << "contrast " << static_cast<int>(contrast);
    EXPECT_LT(miss.degrees, 1) << "contrast " << static_cast<int>(contrast);
    if (sanitized) break;
  }
}

/// By how far a volume is missed that its header alone turned about an axis and shifted: nothing of it is cut off.
Miss turned_by(double degrees, const Point3& axis, AlignMeasure measure) {
  const Volume fixed = head_phantom();
  const double angle = degrees * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle);
  const std::array<Point3, 3> cross = {{{0, -axis[2], axis[1]}, {axis[2], 0, -axis[0]}, {-axis[1], axis[0], 0}}};
  Affine truth;
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) truth.rows[i][j] = (i == j ? c : 0) + s * cross[i][j] + (1 - c) * axis[i] * axis[j];
  truth.rows[0][3] = 140, truth.rows[1][3] = -90, truth.rows[2][3] = 300;
  Volume moving = fixed;
  moving.grid.to_world = truth.after(fixed.grid.to_world);
  return miss_of(align(moving, fixed, rigid_by(measure)).to_moving, truth, fixed);
}

TEST(Align, FindsItsWayFromThirtyDegreesAndAnyShift) {
  for (const Point3& axis : {Point3{1, 0, 0}, Point3{0, -1, 0}, Point3{0.6, 0, 0.8}}) {
    const Miss miss = turned_by(30, axis, AlignMeasure::correlation);
    EXPECT_LT(miss.mm, 0.2);
    EXPECT_LT(miss.degrees, 0.2);
    if (sanitized) break;
  }
}

TEST(Align, SearchesRotationsBeforeItClimbs) {
  for (const double x : {-1, 1})
    for (const double y : {-1, 1})
      for (const double z : {-1, 1}) {
        EXPECT_LT(turned_by(110, {x / std::sqrt(3), y / std::sqrt(3), z / std::sqrt(3)}, AlignMeasure::mutual_information).mm, 0.3)
            << x << y << z;
        if (sanitized) return;
      }
}

TEST(Align, FindsScalesAndShears) {
  const Volume fixed = head_phantom();
  Affine truth;
  truth.rows = {{{1.12, 0.05, -0.03, 6}, {0.02, 0.92, 0.1, -9}, {-0.04, 0.06, 1.07, 4}}};
  for (const AlignMeasure measure : {AlignMeasure::correlation, AlignMeasure::mutual_information}) {
    Volume moving = moved(fixed, truth.inverse());
    // Correlation takes a bias field for a change of shape: 1.1 mm here.
    if (measure == AlignMeasure::mutual_information) disturb(moving, RngKey{5}, Contrast::gamma, kNoise);
    const Alignment found = align(moving, fixed, {AlignModel::affine, measure, {8, 4}});
    EXPECT_LT(miss_of(found.to_moving, truth, fixed).mm, 1) << static_cast<int>(measure);
    const Alignment stiff = align(moving, fixed, {AlignModel::rigid, measure, {8, 4}});
    EXPECT_NEAR(stiff.to_moving.determinant(), 1, 1e-9);
    EXPECT_LT(stiff.value, found.value);
  }
}

TEST(Align, ASimilarityHasOneScale) {
  const Volume fixed = head_phantom();
  Affine truth = random_rigid(RngKey{3}, kMiddle, 10, 10);
  for (auto& row : truth.rows)
    for (size_t c = 0; c < 3; ++c) row[c] *= 1.1;
  const Alignment found = align(moved(fixed, truth.inverse()), fixed, {AlignModel::similarity, AlignMeasure::correlation, {8, 4}});
  EXPECT_LT(miss_of(found.to_moving, truth, fixed).mm, 0.5);
  const auto& a = found.to_moving.rows;
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) {
      double dot = 0;
      for (size_t r = 0; r < 3; ++r) dot += a[r][i] * a[r][j];
      EXPECT_NEAR(dot, i == j ? std::pow(found.to_moving.determinant(), 2.0 / 3) : 0, 1e-9);
    }
}

TEST(Align, DependsNotOnTheThreads) {
  const Volume fixed = head_phantom();
  const Volume moving = moved(fixed, random_rigid(RngKey{4}, kMiddle, 10, 10));
  const int threads = omp_get_max_threads();
  std::array<Alignment, 2> found;
  for (const int n : {1, 3}) {
    omp_set_num_threads(n);
    found[n == 1 ? 0 : 1] = align(moving, fixed, {AlignModel::affine, AlignMeasure::mutual_information, {8}});
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(found[0].to_moving, found[1].to_moving);
  EXPECT_EQ(found[0].value, found[1].value);
}

TEST(Align, SaysWhatCannotBeAligned) {
  Volume volume = head_phantom();
  EXPECT_EQ(alignment_fault(volume), "");
  volume.at(3, 4, 5) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(alignment_fault(volume), "holds 1 values that are not finite");
  EXPECT_THROW(align(volume, head_phantom(), {}), Error);
  std::ranges::fill(volume.values, 2.0f);
  EXPECT_EQ(alignment_fault(volume), "is constant: every voxel is 2");
  volume.grid.size = {72 * 84 * 24, 1, 3};
  EXPECT_EQ(alignment_fault(volume), "is only 145152 x 1 x 3 voxels large");
  EXPECT_THROW(align(head_phantom(), head_phantom(), {AlignModel::rigid, AlignMeasure::correlation, {2, 4}}), Error);
}

/// Smooth, so that differences of values tell slopes.
Volume blurred_phantom() { return smooth(head_phantom(), {2, 2, 2}); }

TEST(AlignMeasure, SlopesAreThoseOfTheValue) {
  const Volume volume = blurred_phantom();
  const FixedSamples samples = sample_fixed(volume, 0.1f, 10, 100000);
  const Affine at = random_rigid(RngKey{21}, kMiddle, 6, 6);
  const Point3 centre = at(kMiddle);
  for (const AlignMeasure kind : {AlignMeasure::correlation, AlignMeasure::mutual_information}) {
    const auto measure = make_measure(kind, samples, volume);
    const MeasureSlope slope = measure->slope(at, centre);
    EXPECT_NEAR(slope.value, measure->value(at), 1e-12);
    for (size_t p = 0; p < 12; ++p) {
      const double h = p < 9 ? 2e-3 : 0.1;
      std::array<double, 2> values{};
      for (const size_t side : {0, 1}) {
        Affine move;
        (p < 9 ? move.rows[p / 3][p % 3] : move.rows[p - 9][3]) += side == 0 ? -h : h;
        for (size_t r = 0; r < 3 && p < 9; ++r)
          for (size_t c = 0; c < 3; ++c) move.rows[r][3] -= (move.rows[r][c] - (r == c ? 1 : 0)) * centre[c];
        values[side] = measure->value(move.after(at));
      }
      const double difference = (values[1] - values[0]) / (2 * h), size = p < 9 ? 1.0 : 0.02;
      EXPECT_NEAR(slope.gradient[p], difference, 0.05 * std::abs(difference) + 0.02 * size)
          << "parameter " << p << " of " << static_cast<int>(kind);
    }
  }
}

TEST(AlignMeasure, FewSamplesInsideAreNoFit) {
  Volume noisy = head_phantom();
  disturb(noisy, RngKey{1}, Contrast::same, 0.02);  // what lies beyond is unknown
  const FixedSamples samples = sample_fixed(noisy, 0.1f, 10, 20000);
  Affine far;
  far.rows[0][3] = 160;
  for (const AlignMeasure kind : {AlignMeasure::correlation, AlignMeasure::mutual_information}) {
    const auto measure = make_measure(kind, samples, noisy);
    EXPECT_EQ(measure->value(far), -1);
    EXPECT_GT(measure->value({}), 0.5);
  }
}

TEST(AlignSamples, LooksUpValuesAndGradients) {
  Volume ramp;
  ramp.grid.size = {9, 8, 7};
  ramp.grid.to_world.rows = {{{0, -2, 0, 5}, {3, 0, 0, -4}, {0, 0, 1.5, 2}}};
  ramp.values.resize(static_cast<size_t>(ramp.grid.voxels()));
  const auto intensity = [](const Point3& x) { return 3 * x[0] - 2 * x[1] + 5 * x[2]; };
  for (int64_t k = 0; k < 7; ++k)
    for (int64_t j = 0; j < 8; ++j)
      for (int64_t i = 0; i < 9; ++i)
        ramp.at(i, j, k) =
            static_cast<float>(intensity(ramp.grid.to_world({static_cast<double>(i), static_cast<double>(j), static_cast<double>(k)})));
  const Lattice lattice(ramp);
  Lattice::Sample s;
  const Point3 voxel = {3.25, 4.5, 2.75};
  ASSERT_TRUE(lattice.look_up(voxel, s));
  EXPECT_NEAR(s.value, intensity(ramp.grid.to_world(voxel)), 1e-4);
  EXPECT_NEAR(s.gx, 3, 1e-4);
  EXPECT_NEAR(s.gy, -2, 1e-4);
  EXPECT_NEAR(s.gz, 5, 1e-4);
  EXPECT_FALSE(lattice.look_up({-0.6, 3, 3}, s));
  EXPECT_FALSE(lattice.look_up({3, 3, 6.6}, s));
  EXPECT_TRUE(lattice.look_up({8.4, 7.4, 6.4}, s));
}

TEST(VolumeLevels, CoarserCopiesStayInPlace) {
  const Volume fine = head_phantom();
  const auto copies = coarser_copies(fine, std::vector<double>{8, 5, 2.5});
  EXPECT_EQ(copies[2].grid, fine.grid);
  EXPECT_EQ(copies[2].values, fine.values);
  const Point3 centre = find_foreground(fine, 0.3f).centre;
  for (const Volume& copy : copies) {
    for (const double mm : copy.grid.spacing()) EXPECT_LE(mm, 8);
    const Point3 there = find_foreground(copy, 0.3f).centre;
    EXPECT_LT(std::hypot(there[0] - centre[0], there[1] - centre[1], there[2] - centre[2]), 0.5);
  }
  EXPECT_NEAR(copies[1].grid.spacing()[0], 5, 1e-9);
  EXPECT_NEAR(copies[0].grid.spacing()[0], 5, 1e-9);  // 7.5 would be a third more, 8 is no multiple of 5
}

TEST(VolumeLevels, TellsForegroundFromBackground) {
  Volume volume = head_phantom();
  EXPECT_TRUE(has_empty_border(volume));
  const float threshold = foreground_threshold(volume);
  EXPECT_GT(threshold, 0.05f);
  EXPECT_LT(threshold, 0.6f);
  const Foreground found = find_foreground(volume, threshold);
  EXPECT_NEAR(static_cast<double>(found.high[0] - found.low[0]) * 2.5, 132, 6);
  EXPECT_NEAR(static_cast<double>(found.high[1] - found.low[1]) * 2.5, 164, 6);
  disturb(volume, RngKey{2}, Contrast::same, 0.05);
  EXPECT_FALSE(has_empty_border(volume));
  EXPECT_EQ(find_foreground(volume, 100).voxels, 0);
}

}  // namespace
}  // namespace ermoe
