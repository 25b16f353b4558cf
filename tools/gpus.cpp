#include "tools/gpus.h"

#if defined(ERMOE_FOUND_CUDA)
#include "cuda/factory.h"

#include <fmt/format.h>
#endif

namespace ermoe {

#if defined(ERMOE_FOUND_CUDA)
std::string describe_gpus() {
  const FoundGpus found = find_gpus();
  if (!found.fault.empty()) return fmt::format("none can be asked: {}", found.fault);
  if (found.gpus.empty()) return {};
  std::string names;
  for (const GpuInfo& gpu : found.gpus)
    names += fmt::format("{}{}, {:.1f} GiB, compute capability {}.{}", names.empty() ? "" : "; ", gpu.name,
                         static_cast<double>(gpu.memory_bytes) / 1073741824.0, gpu.major, gpu.minor);
  return fmt::format("{} found ({}); this build computes on the CPU", found.gpus.size(), names);
}
#else
std::string describe_gpus() { return {}; }
#endif

}  // namespace ermoe
