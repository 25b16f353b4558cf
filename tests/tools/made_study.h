// A study of small made brains in a folder: volumes, a table of ages, maps of regions, and settings that train on it in a moment.
#pragma once

#include "core/rng.h"
#include "data/nifti.h"
#include "tests/tools/temp_folder.h"
#include "tools/run_config.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace ermoe::testing {

/// An ellipsoid of 40 x 48 x 40 mm in RAS, bright in the middle by `contrast`, with noise of its own: (20, 20, 20) voxels of 4 mm.
inline Volume small_brain(uint64_t seed, double contrast) {
  Volume v;
  v.grid.size = {20, 20, 20};
  for (size_t a = 0; a < 3; ++a) v.grid.to_world.rows[a][a] = 4, v.grid.to_world.rows[a][3] = -38;
  for (int64_t i = 0; i < v.grid.voxels(); ++i) {
    const Point3 x = v.grid.to_world({static_cast<double>(i % 20), static_cast<double>(i / 20 % 20), static_cast<double>(i / 400)});
    const double r = std::hypot(x[0] / 20, x[1] / 24, x[2] / 20);
    const double noise = 0.05 * uniform(RngKey{seed}, static_cast<uint64_t>(i));
    v.values.push_back(r >= 1 ? 0.0f : static_cast<float>(100 * (1 + noise + (r < 0.5 ? contrast : 0))));
  }
  return v;
}

/// While it lives, nothing is printed: tests train, and training talks.
class Quiet {
 public:
  Quiet() { ::testing::internal::CaptureStdout(); }
  ~Quiet() {
    if (!told_) text();
  }
  /// What was said. Once.
  std::string text() {
    told_ = true;
    return ::testing::internal::GetCapturedStdout();
  }

 private:
  bool told_ = false;
};

/// Left half 1, right half 2.
inline Volume small_regions(const Volume& brain) {
  Volume map = brain;
  for (size_t i = 0; i < map.values.size(); ++i) map.values[i] = brain.values[i] == 0 ? 0.0f : i % 20 < 10 ? 1.0f : 2.0f;
  return map;
}

/// Subjects s00, s01, … of 20, 22, … years, whose brains brighten with age.
class MadeStudy {
 public:
  explicit MadeStudy(int64_t subjects) : subjects_(subjects) {
    for (int64_t i = 0; i < subjects; ++i) {
      const Volume brain = small_brain(static_cast<uint64_t>(i), 0.02 * static_cast<double>(i));
      folder.file(fmt::format("t1/{}.nii", name(i)), encode_nifti(brain));  // not forced to the disk: that takes longer than the tests
      folder.file(fmt::format("regions/{}.nii", name(i)), encode_nifti(small_regions(brain), {.type = VoxelType::u8}));
    }
    write_table([](int64_t) { return ""; });
  }

  static std::string name(int64_t i) { return fmt::format("s{:02}", i); }
  static double age(int64_t i) { return 20 + 2 * static_cast<double>(i); }
  std::string volume(int64_t i) const { return folder / fmt::format("t1/{}.nii", name(i)); }

  /// Writes participants.tsv anew, with this split of each.
  void write_table(const std::function<std::string(int64_t)>& split) const {
    std::string table = "participant_id\tage\tsplit\n";
    for (int64_t i = 0; i < subjects_; ++i) table += fmt::format("{}\t{}\t{}\n", name(i), age(i), split(i));
    folder.file("participants.tsv", table);
  }

  /// With experts that keep to a half each, by these maps.
  RunConfig regional(const std::string& maps = "regions/{participant_id}.nii") const {
    RunConfig c = config();
    c.data.regions = maps;
    c.model.moe.regions = "0:1;1:2";
    c.model.moe.free_experts = 1;
    return c;
  }
  RunConfig config() const {
    RunConfig c;
    c.data.path = folder.path().string();
    c.data.volumes = "t1/{participant_id}.nii";
    c.data.spacing = 4;
    c.data.val_share = 0.25;
    c.loss.kind = LossKind::l1;
    c.model.dimensions = 3;
    c.model.patch = 4;
    c.model.width = 16;
    c.model.depth = 2;
    c.model.heads = 2;
    c.model.moe.experts = 2;
    c.model.moe.top_k = 1;
    c.model.moe.hidden = 16;
    c.model.pool = Pool::average;
    c.train.batch = 4;
    c.train.epochs = 1;
    c.train.threads = 1;
    c.train.device = DeviceChoice::cpu;
    return c;
  }

  TempFolder folder;

 private:
  int64_t subjects_;
};

}  // namespace ermoe::testing
