// Every setting of volumes reaches the op that reads it.
#include "tools/volume_settings.h"

#include "tools/config_table.h"

#include <gtest/gtest.h>

namespace ermoe {
namespace {

TEST(VolumeSettings, EachOfAugmentReachesTheOp) {
  RunConfig config;
  int64_t number = 0;
  for (const char* name : {"shift", "rotate", "scale", "gain", "gamma", "bias", "noise"})
    set_from_text(config, *find_setting(std::string("augment.") + name), std::to_string(0.1 * static_cast<double>(++number)), "--");
  set_from_text(config, *find_setting("augment.flip"), "true", "--");
  const VolumeAugment v = volume_augment(config.augment);
  number = 0;
  for (double value : {v.shift, v.rotate, v.scale, v.gain, v.gamma, v.bias, v.noise})
    EXPECT_NEAR(value, 0.1 * static_cast<double>(++number), 1e-12);
  EXPECT_TRUE(v.flip);
}

}  // namespace
}  // namespace ermoe
