// Which device a program computes on, and what its user should know about that. Apart from the search for GPUs itself, so that
// every answer can be tested on a machine without one.
#pragma once

#include "cuda/factory.h"
#include "tools/run_config.h"

#include <optional>
#include <string>

namespace ermoe {

struct DeviceDecision {
  std::optional<int> gpu;  // its index; none: the CPU
  std::string note;        // why a CPU although a GPU would do, or which of several GPUs; empty where nothing is to be said
};

/// The first GPU that the build has code for, else the CPU with the reason. Throws InputError with that reason where `choice`
/// is cuda.
DeviceDecision decide_device(DeviceChoice choice, const FoundGpus& found);

/// The same for this machine and build.
DeviceDecision decide_device(DeviceChoice choice);

}  // namespace ermoe
