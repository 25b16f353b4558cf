// From a run's settings to what the ops on volumes take.
#pragma once

#include "ops/augment_volume.h"
#include "tools/run_config.h"

namespace ermoe {

/// How training volumes are varied.
VolumeAugment volume_augment(const AugmentConfig& config);

}  // namespace ermoe
