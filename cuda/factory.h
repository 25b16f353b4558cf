// The one header of cuda/ that the floors above may include: no CUDA header is needed to read it. It exists in builds that
// found CUDA (ERMOE_WITH_CUDA is defined there). Read next: cuda/runtime/device.cpp.
#pragma once

#include "core/allocator.h"
#include "core/device.h"

#include <cstddef>
#include <memory>
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

/// Which kernels to use: those of the GPU's own generation, or those of Ampere also on a newer one (to test them).
enum class KernelPath { native, ampere };

/// One GPU in use: a stream of work with its libraries' handles. It must outlive all memory and work of its stream.
class Gpu {
 public:
  virtual ~Gpu() = default;
  virtual const GpuInfo& info() const = 0;
  virtual Stream stream() = 0;
  virtual std::unique_ptr<MemorySource> memory() = 0;
  /// Waits until the stream is idle; throws what went wrong on it.
  virtual void synchronize() = 0;
};

/// Makes GPU `index` this thread's current one. Throws `Error` where it cannot be used.
std::unique_ptr<Gpu> make_gpu(int index, KernelPath path = KernelPath::native);

}  // namespace ermoe
