#include "tools/volume_settings.h"

namespace ermoe {

VolumeAugment volume_augment(const AugmentConfig& config) {
  return {.shift = config.shift,
          .rotate = config.rotate,
          .scale = config.scale,
          .flip = config.flip,
          .gain = config.gain,
          .gamma = config.gamma,
          .bias = config.bias,
          .noise = config.noise};
}

}  // namespace ermoe
