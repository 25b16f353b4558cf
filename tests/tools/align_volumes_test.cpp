#include "tools/align_volumes.h"

#include "core/error.h"
#include "core/json.h"
#include "data/decode.h"
#include "data/nifti.h"
#include "data/volume_grid.h"
#include "tests/data/head_phantom.h"
#include "tests/data/tar_writer.h"
#include "tests/tools/temp_folder.h"
#include "tools/align_picture.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <filesystem>
#include <limits>

namespace ermoe {
namespace {

using namespace testing;

/// Where the phantom is bright: a region map of two labels.
Volume regions_of(Volume volume) {
  for (float& v : volume.values) v = v > 0.8f ? 2.0f : v > 0.5f ? 1.0f : 0.0f;
  return volume;
}

/// 12 degrees about the vertical axis and a shift.
Affine turn() {
  Affine a;
  a.rows = {{{std::cos(0.21), -std::sin(0.21), 0, 8}, {std::sin(0.21), std::cos(0.21), 0, -5}, {0, 0, 1, 12}}};
  return a;
}

class AlignVolumesTest : public ::testing::Test {
 protected:
  AlignVolumesTest() {
    const Volume fixed = head_phantom();
    write_nifti(folder / "template.nii.gz", fixed);
    Volume image = fixed, labels = regions_of(fixed);
    image.grid.to_world = labels.grid.to_world = turn().after(fixed.grid.to_world);
    std::filesystem::create_directories(folder / "t1");
    write_nifti(folder / "t1/a.nii.gz", image);
    write_nifti(folder / "a_regions.nii.gz", labels, {.type = VoxelType::u8});
    work.images = {folder / "t1"};
    work.fixed = folder / "template.nii.gz";
    work.out = folder / "out";
    work.options = {AlignModel::rigid, AlignMeasure::correlation, {8, 4}};
  }

  std::string refusal() {
    try {
      run();
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }
  void run() {
    align_volumes(
        work, [&](const std::string& line) { said.push_back(line); }, [&](const std::string& line) { warned.push_back(line); });
  }

  TempFolder folder;
  AlignVolumes work;
  std::vector<std::string> said, warned;
};

TEST_F(AlignVolumesTest, WritesVolumeLabelsMatrixAndPicture) {
  work.labels = {folder / "a_regions.nii.gz"};
  run();
  EXPECT_EQ(said.front(), kAlignExpectations);
  ASSERT_EQ(said.size(), 3u);
  EXPECT_TRUE(said[1].starts_with("a: turned by 12.0 degrees, scaled by 1.000, fit 1.000")) << said[1];
  EXPECT_TRUE(warned.empty()) << warned[0];
  const Volume fixed = head_phantom(), image = read_nifti(work.out + "/a_aligned.nii.gz"),
               labels = read_nifti(work.out + "/a_regions_aligned.nii.gz");
  EXPECT_TRUE(same_grid(image.grid, fixed.grid));
  EXPECT_TRUE(same_grid(labels.grid, fixed.grid));
  const Volume truth = regions_of(fixed);
  double off = 0;
  int64_t wrong = 0, held = 0;
  for (size_t i = 0; i < fixed.values.size(); ++i) {
    off = std::max(off, static_cast<double>(std::abs(image.values[i] - fixed.values[i])));
    wrong += labels.values[i] != truth.values[i];
    held += truth.values[i] != 0;
    ASSERT_TRUE(labels.values[i] == 0 || labels.values[i] == 1 || labels.values[i] == 2);
  }
  EXPECT_LT(off, 0.15);
  EXPECT_LT(static_cast<double>(wrong), 0.02 * static_cast<double>(held));
  const auto json = read_json(work.out + "/a_aligned.json");
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 4; ++c) EXPECT_NEAR(json["matrix"][r][c].get<double>(), turn().rows[r][c], c == 3 ? 0.2 : 0.005);
  EXPECT_TRUE(std::filesystem::exists(work.out + "/a_aligned.png"));
}

TEST_F(AlignVolumesTest, TakesVolumesOutOfAnArchive) {
  const auto bytes = [&](const std::string& name) { return TempFolder::read(folder / name); };
  const std::string archive =
      folder.file("study.tar", tar_member({.name = "t1/a.nii.gz", .content = bytes("t1/a.nii.gz")}) +
                                   tar_member({.name = "maps/a_regions.nii.gz", .content = bytes("a_regions.nii.gz")}) +
                                   tar_member({.name = "template.nii.gz", .content = bytes("template.nii.gz")}) +
                                   tar_member({.name = "notes.txt", .content = "nothing"}) + tar_end());
  work.labels = {folder / "a_regions.nii.gz"};
  work.options.levels = {8};  // quick: both ways are alike wrong
  work.spacing = 8;
  run();
  work.images = {archive + ":t1/*"};
  work.labels = {archive + ":maps/?_regions.nii.gz"};
  work.fixed = archive + ":template.nii.gz";
  const std::string loose = work.out;
  work.out = folder / "packed";
  run();
  for (const char* name : {"/a_aligned.nii.gz", "/a_regions_aligned.nii.gz", "/a_aligned.png"})
    EXPECT_EQ(TempFolder::read(work.out + name), TempFolder::read(loose + name)) << name;
  EXPECT_EQ(read_json(work.out + "/a_aligned.json")["image"], archive + ": t1/a.nii.gz");
  work.images = {archive + ":t2/*"};
  EXPECT_EQ(refusal(), archive + ": holds no .nii or .nii.gz files that match t2/*");
  work.images = {archive};
  work.labels = {};
  work.fixed = archive;
  EXPECT_EQ(refusal(), archive + ": these are 3 volumes, and a template is one");
}

TEST_F(AlignVolumesTest, WritesVoxelsOfTheSpacingAskedFor) {
  work.spacing = 5;
  run();
  EXPECT_EQ(read_nifti(work.out + "/a_aligned.nii.gz").grid.size, (std::array<int64_t, 3>{36, 42, 36}));
}

TEST_F(AlignVolumesTest, RefusesWhatIsWrongInOneSentence) {
  work.images = {folder / "none.nii.gz"};
  EXPECT_NE(refusal().find("none.nii.gz"), std::string::npos);
  work.images = {folder / "t1/a.nii.gz", folder / "t1/../t1/a.nii.gz"};
  EXPECT_NE(refusal().find("would be written to the same file as"), std::string::npos);
  work.images = {folder / "t1"};
  work.labels = {folder / "a_regions.nii.gz", folder / "template.nii.gz"};
  EXPECT_EQ(refusal(), "--labels: 2 region maps for 1 volumes; give one for each, in the same order");
  work.labels = {folder / "template.nii.gz"};
  EXPECT_NE(refusal().find("lies on another grid than"), std::string::npos);
  work.labels = {};
  Volume volume = head_phantom();
  volume.at(1, 2, 3) = std::numeric_limits<float>::infinity();
  write_nifti(folder / "inf.nii.gz", volume);
  work.images = {folder / "inf.nii.gz"};
  EXPECT_EQ(refusal(), (folder / "inf.nii.gz") + ": holds 1 values that are not finite");
  std::filesystem::create_directories(folder / "empty");
  work.images = {folder / "empty"};
  EXPECT_EQ(refusal(), (folder / "empty") + ": holds no .nii, .nii.gz or .hdr files");
}

TEST_F(AlignVolumesTest, WarnsOfSkulls) {
  Volume head = read_nifti(folder / "t1/a.nii.gz");
  for (float& v : head.values) v += 0.01f;  // air that is not empty
  write_nifti(folder / "head.nii.gz", head);
  work.images = {folder / "head.nii.gz"};
  run();
  ASSERT_EQ(warned.size(), 1u);
  EXPECT_TRUE(warned[0].starts_with(folder / "head.nii.gz"));
}

TEST(AlignPicture, IsRightSideUp) {
  // A small ball at the right, front, top; and one in the middle that holds the middle slices. Voxels run to the left, back and down.
  Volume volume;
  volume.grid.size = {60, 60, 60};
  for (size_t a = 0; a < 3; ++a) volume.grid.to_world.rows[a][a] = -2, volume.grid.to_world.rows[a][3] = 59;
  for (int64_t k = 0; k < 60; ++k)
    for (int64_t j = 0; j < 60; ++j)
      for (int64_t i = 0; i < 60; ++i) {
        const Point3 x = volume.grid.to_world({static_cast<double>(i), static_cast<double>(j), static_cast<double>(k)});
        const bool arms = (std::abs(x[1]) < 10 && std::abs(x[2]) < 10 && x[0] > 0 && x[0] < 40) ||
                          (std::abs(x[0]) < 10 && std::abs(x[2]) < 10 && x[1] > 0 && x[1] < 40) ||
                          (std::abs(x[0]) < 10 && std::abs(x[1]) < 10 && x[2] > 0 && x[2] < 40);
        volume.values.push_back(arms ? 100.0f : 0.0f);
      }
  const Image image = draw_alignment(volume, volume, {}, "arms");
  // The template's panes lie at (20, 64), 230 pixels a side, 14 apart: pixels at a share of the pane right of and below its corner.
  const auto bright = [&](int pane, double right, double down) {
    const auto x = static_cast<int64_t>(20 + 230 * right), y = static_cast<int64_t>(64 + 244 * pane + 230 * down);
    return image.pixels[static_cast<size_t>((y * image.width + x) * 3)] > 128;
  };
  for (int pane = 0; pane < 3; ++pane) {
    EXPECT_TRUE(bright(pane, 0.7, 0.47)) << pane;  // to the right, or to the front in the sagittal one
    EXPECT_FALSE(bright(pane, 0.3, 0.47)) << pane;
    EXPECT_TRUE(bright(pane, 0.53, 0.3)) << pane;  // up: to the front or to the top
    EXPECT_FALSE(bright(pane, 0.53, 0.7)) << pane;
  }
}

}  // namespace
}  // namespace ermoe
