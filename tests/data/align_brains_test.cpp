// Alignment of real brains, where the data set is at hand: 50 known transforms of heads found again, and how much more alike the
// region maps of subjects lie on one another after alignment to a template. The figures of docs/brain-age.md.
#include "data/align.h"
#include "data/file_tree.h"
#include "data/nifti.h"
#include "data/volume_grid.h"
#include "tests/data/align_trials.h"
#include "tests/data/test_data.h"
#include "tests/sanitizers.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <string>

namespace ermoe {
namespace {

using namespace testing;

constexpr size_t kMostBytes = size_t{64} << 20;

/// The volumes whose path holds `part`, by path.
std::vector<Volume> volumes_of(const FileTree& tree, std::string_view part, size_t most) {
  std::vector<size_t> found;
  for (size_t i = 0; i < tree.paths().size(); ++i)
    if (tree.paths()[i].find(part) != std::string::npos && is_volume_name(tree.paths()[i])) found.push_back(i);
  std::vector<Volume> volumes;
  const size_t count = std::min(most, found.size());
  for (size_t i = 0; i < count; ++i) {
    const size_t at = found[i * found.size() / count];
    volumes.push_back(read_nifti(tree.read(at, kMostBytes), tree.name(at)));
  }
  return volumes;
}

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

TEST(AlignBrains, FiftyKnownTransformsOfHeadsAreFound) {
  ERMOE_STATISTICS();
  ERMOE_REQUIRE_TEST_DATA(path, "ixi_t1_2mm.tar");
  const auto tree = open_archive(path);
  std::vector<Volume> volumes = volumes_of(*tree, "t1_head/", 6);
  for (Volume& v : volumes_of(*tree, "t1_brain/", 19)) volumes.push_back(std::move(v));
  ASSERT_EQ(volumes.size(), 25u);
  std::vector<double> mm, degrees, seconds;
  for (uint64_t trial = 0; trial < 50; ++trial) {
    const Volume& fixed = volumes[trial % volumes.size()];
    const RngKey key = RngKey{2026}.fold(trial);
    const Affine truth = random_rigid(key, find_foreground(fixed, foreground_threshold(fixed)).centre, 15, 15);
    Volume moving = moved(fixed, truth.inverse());
    disturb(moving, key.fold(1), static_cast<Contrast>(trial % 4), 0.05);
    const Stopwatch watch;
    const Alignment found = align(moving, fixed, {AlignModel::rigid, AlignMeasure::mutual_information, {8, 4, 2}});
    seconds.push_back(watch.seconds());
    const Miss miss = miss_of(found.to_moving, truth, fixed);
    mm.push_back(miss.mm);
    degrees.push_back(miss.degrees);
  }
  std::printf("50 rigid transforms: missed by %.3f mm and %.3f degrees in the median, %.3f and %.3f at worst; %.1f s each\n", median(mm),
              median(degrees), *std::ranges::max_element(mm), *std::ranges::max_element(degrees), median(seconds));
  EXPECT_LT(median(mm), 1);
  EXPECT_LT(median(degrees), 1);
  EXPECT_LT(*std::ranges::max_element(mm), 3) << "one went astray";
}

/// Twice what two maps share of a label by what both hold of it, averaged over labels and pairs.
double mean_overlap(const std::vector<Volume>& maps) {
  double sum = 0;
  int64_t count = 0;
  for (size_t a = 0; a < maps.size(); ++a) {
    for (size_t b = a + 1; b < maps.size(); ++b) {
      std::map<int, std::pair<double, double>> labels;  // shared, held by either
      for (size_t i = 0; i < maps[a].values.size(); ++i) {
        const int x = static_cast<int>(maps[a].values[i]), y = static_cast<int>(maps[b].values[i]);
        if (x == 0 && y == 0) continue;
        labels[x].second += 1, labels[y].second += 1;
        if (x == y) labels[x].first += 2;
      }
      labels.erase(0);
      for (const auto& [label, both] : labels) sum += both.first / both.second, ++count;
    }
  }
  return sum / static_cast<double>(count);
}

Grid template_grid(const Volume& fixed, double mm) { return grid_with_spacing(to_ras(fixed.grid), mm); }

TEST(AlignBrains, RegionsOfSubjectsOverlapMoreAfterwards) {
  ERMOE_STATISTICS();
  ERMOE_REQUIRE_TEST_DATA(path, "ixi_t1_2mm.tar");
  const auto tree = open_archive(path);
  const std::vector<Volume> brains = volumes_of(*tree, "t1_brain/", 20), regions = volumes_of(*tree, "regions/", 20);
  const std::vector<Volume> fixed = volumes_of(*tree, "ch2bet.nii.gz", 1);
  ASSERT_EQ(brains.size(), 20u);
  ASSERT_EQ(regions.size(), 20u);
  ASSERT_EQ(fixed.size(), 1u);
  // Large enough for every subject where it lay in the scanner.
  Grid scanner{{140, 140, 140}, {}};
  scanner.to_world.rows = {{{2, 0, 0, -140}, {0, 2, 0, -140}, {0, 0, 2, -140}}};
  std::vector<Volume> before;
  for (const Volume& r : regions) before.push_back(resample(r, scanner, Interpolation::nearest));
  std::map<AlignModel, double> after;
  for (const AlignModel model : {AlignModel::rigid, AlignModel::affine}) {
    std::vector<Volume> maps;
    for (size_t i = 0; i < brains.size(); ++i) {
      ASSERT_TRUE(same_grid(brains[i].grid, regions[i].grid));
      const Alignment found = align(brains[i], fixed[0], {model, AlignMeasure::mutual_information, {8, 4, 2}});
      maps.push_back(resample({aligned_grid(regions[i].grid, found.to_moving), regions[i].values}, template_grid(fixed[0], 2),
                              Interpolation::nearest));
    }
    after[model] = mean_overlap(maps);
  }
  const double unaligned = mean_overlap(before);
  std::printf("mean Dice of 11 regions over the pairs of 20 subjects: %.3f in the scanner, %.3f rigid, %.3f affine\n", unaligned,
              after[AlignModel::rigid], after[AlignModel::affine]);
  EXPECT_GT(after[AlignModel::rigid], unaligned + 0.2);
  EXPECT_GT(after[AlignModel::affine], after[AlignModel::rigid]);
}

}  // namespace
}  // namespace ermoe
