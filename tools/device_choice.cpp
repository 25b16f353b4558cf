#include "tools/device_choice.h"

#include "core/error.h"
#include "core/gpu_generations.h"

#include <algorithm>

namespace ermoe {
namespace {

/// Why none of what was found can be used.
std::string reason_without(const FoundGpus& found) {
  if (!found.fault.empty()) return "the GPU driver failed: " + found.fault;
  if (found.gpus.empty()) return "no GPU was found";
  const GpuInfo& gpu = found.gpus[0];
  return fmt::format("{}{} has compute capability {}.{}, and this build has code for generations {} alone (ERMOE_GPUS)",
                     found.gpus.size() > 1 ? fmt::format("none of {} GPUs can be used: ", found.gpus.size()) : "", gpu.name, gpu.major,
                     gpu.minor, found.built_for);
}

}  // namespace

DeviceDecision decide_device(DeviceChoice choice, const FoundGpus& found) {
  if (choice == DeviceChoice::cpu) return {};
  const auto gpu = std::ranges::find_if(found.gpus, [&](const GpuInfo& g) { return runs_on(found.built_for, g.major, g.minor); });
  if (gpu == found.gpus.end()) {
    const std::string reason = reason_without(found);
    check_input(choice == DeviceChoice::auto_, "train.device: cuda was asked for, but {}", reason);
    return {.gpu = {}, .note = reason};
  }
  DeviceDecision decision{.gpu = gpu->index, .note = {}};
  if (found.gpus.size() > 1)
    decision.note =
        fmt::format("GPU {} of {}: a process uses one, CUDA_VISIBLE_DEVICES says which it may see", gpu->index, found.gpus.size());
  return decision;
}

DeviceDecision decide_device(DeviceChoice choice) {
#if defined(ERMOE_WITH_CUDA)
  return decide_device(choice, choice == DeviceChoice::cpu ? FoundGpus{} : find_gpus());
#else
  check_input(choice != DeviceChoice::cuda, "train.device: this build computes on the CPU; leave it out or set it to cpu");
  return {};
#endif
}

}  // namespace ermoe
