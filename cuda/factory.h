// The one header of cuda/ that the floors above may include: no CUDA header is needed to read it. It exists in builds that
// found CUDA (ERMOE_FOUND_CUDA is defined there). Read next: cuda/runtime/device.cpp.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace ermoe {

/// One GPU of this machine.
struct GpuInfo {
  int index = 0;  // as CUDA counts, CUDA_VISIBLE_DEVICES heeded
  std::string name;
  size_t memory_bytes = 0;
  int multiprocessors = 0;
  int major = 0, minor = 0;  // compute capability
};

struct FoundGpus {
  std::vector<GpuInfo> gpus;
  std::string fault;  // why the driver could not say, in one sentence; empty where there simply is no GPU or no driver
};

/// The GPUs that this process may use. Never throws on a broken driver: a run on the CPU does not need one.
FoundGpus find_gpus();

}  // namespace ermoe
