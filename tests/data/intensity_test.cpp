// Normalisation of intensities, and what gives away that a skull is still there.
#include "data/intensity.h"

#include "core/error.h"
#include "data/nifti.h"
#include "data/tar.h"
#include "tests/data/test_data.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ermoe::testing {
namespace {

Volume ramp(int64_t background, int64_t brain) {
  Volume volume{{{background + brain, 1, 1}, {}}, std::vector<float>(static_cast<size_t>(background))};
  for (int64_t i = 1; i <= brain; ++i) volume.values.push_back(static_cast<float>(i));
  return volume;
}

TEST(Normalize, WithinTheBrainAlone) {
  Volume volume = ramp(5, 101);  // 1 … 101: mean 51
  normalize(volume, Normalize::none, "s");
  EXPECT_EQ(volume.values, ramp(5, 101).values);
  normalize(volume, Normalize::mean, "s");
  EXPECT_FLOAT_EQ(volume.values[5], 1 / 51.0f);
  EXPECT_EQ(volume.values[4], 0);

  volume = ramp(5, 101);
  volume.values[0] = -7;
  normalize(volume, Normalize::zscore, "s");
  EXPECT_EQ(volume.values[0], 0);
  EXPECT_EQ(volume.values[5 + 50], 0);
  EXPECT_FLOAT_EQ(volume.values[5 + 100], static_cast<float>(50 / std::sqrt((101.0 * 101 - 1) / 12)));

  volume = ramp(5, 101);
  normalize(volume, Normalize::percentile, "s");  // from 2 to 100
  EXPECT_EQ(volume.values[5], 0);
  EXPECT_FLOAT_EQ(volume.values[5 + 2], 1 / 98.0f);
  EXPECT_EQ(volume.values[5 + 99], 1);
  EXPECT_EQ(volume.values[5 + 100], 1);
}

TEST(Normalize, RefusesWhatHasNoScale) {
  const auto fault = [](std::vector<float> values, Normalize how) -> std::string {
    Volume volume{{{static_cast<int64_t>(values.size()), 1, 1}, {}}, std::move(values)};
    try {
      normalize(volume, how, "subject 3");
      return "";
    } catch (const InputError& e) {
      return e.what();
    }
  };
  EXPECT_EQ(fault({0, -1}, Normalize::mean), "subject 3: no voxel is above 0, so there is nothing to normalise by");
  for (const Normalize how : {Normalize::zscore, Normalize::percentile})
    EXPECT_EQ(fault({0, 2, 2}, how), "subject 3: its voxels above 0 have one value, so there is no scale to normalise by");
  EXPECT_EQ(fault({0, 2, 2}, Normalize::mean), "");
  EXPECT_EQ(fault({0, 2}, Normalize::none), "");
}

TEST(LooksUnstripped, TellsHeadsFromBrains) {
  ERMOE_REQUIRE_TEST_DATA(path, "ixi_t1_2mm.tar");
  const TarReader tar(path);
  int brains = 0, heads = 0;
  for (const TarEntry& entry : tar.entries()) {
    const bool brain = entry.name.find("t1_brain/") != std::string::npos || entry.name.ends_with("ch2bet.nii.gz");
    const bool head = entry.name.find("t1_head/") != std::string::npos || entry.name.ends_with("avg152T1_LR_nifti.nii.gz");
    if (!entry.name.ends_with(".nii.gz") || (!brain && !head)) continue;
    const Volume volume = read_nifti(tar.read(entry), entry.name);
    EXPECT_NO_THROW(require_sound(volume, entry.name));
    const auto sentence = looks_unstripped(volume, entry.name);
    EXPECT_EQ(sentence.has_value(), head) << entry.name << ": " << sentence.value_or("looks stripped");
    ++(brain ? brains : heads);
  }
  EXPECT_EQ(brains, 152);
  EXPECT_EQ(heads, 7);
}

TEST(LooksUnstripped, SeesABackgroundThatIsNotZero) {
  Volume volume = ramp(80, 20);
  EXPECT_FALSE(looks_unstripped(volume, "s"));
  std::fill_n(volume.values.begin(), 60, 0.25f);
  EXPECT_EQ(looks_unstripped(volume, "s"),
            "s: only 20 % of its voxels are exactly 0; brains are expected here, with skull and skin taken off");
  volume = ramp(80, 20);
  volume.grid.to_world.rows[0][0] = 1e6;  // a litre a voxel
  EXPECT_NE(looks_unstripped(volume, "s").value_or("").find("17.0 litres"), std::string::npos) << *looks_unstripped(volume, "s");
}

}  // namespace
}  // namespace ermoe::testing
