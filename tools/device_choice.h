// Which device a program computes on, and what its user should know about that. Apart from the search for GPUs itself, so that
// every answer can be tested on a machine without one.
#pragma once

#include "core/comm.h"
#include "cuda/factory.h"
#include "tools/run_config.h"

#include <optional>
#include <string>
#include <vector>

namespace ermoe {

struct DeviceDecision {
  std::optional<int> gpu;  // its index; none: the CPU
  std::string note;        // why a CPU although a GPU would do, or which of several GPUs; empty where nothing is to be said
};

/// The first GPU that the build has code for, else the CPU with the reason. Throws InputError with that reason where `choice`
/// is cuda.
DeviceDecision decide_device(DeviceChoice choice, const FoundGpus& found);

/// What one of several ranks could compute on, as all of them hear it.
struct RankGpus {
  std::string host;
  std::vector<uint64_t> gpus;  // those that it may use, by `GpuInfo::identity`, in the order of its indices
  std::string reason;          // why there is none
};
RankGpus gpus_of_rank(DeviceChoice choice, const FoundGpus& found, const std::string& host);

/// For rank `rank` of `ranks`, which all decide alike: each has a GPU of its own, the first that no rank before it on its host has,
/// or all take CPUs, with the reason. Throws InputError with that reason where `choice` is cuda.
DeviceDecision decide_device(DeviceChoice choice, const FoundGpus& found, int rank, const std::vector<RankGpus>& ranks);

/// The same for this machine and build; of several ranks all call it. None: one process alone.
DeviceDecision decide_device(DeviceChoice choice, Communicator* ranks = nullptr);

}  // namespace ermoe
