// The one header of cuda/ that the floors above may include: no CUDA header is needed to read it. It exists in builds that
// found CUDA (ERMOE_WITH_CUDA is defined there). Read next: cuda/runtime/device.cpp.
#pragma once

#include "core/allocator.h"
#include "core/device.h"
#include "core/jpeg_engine.h"
#include "core/op_ranges.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace ermoe {

class Communicator;  // core/comm.h: kernels' files, which see this, include nothing that formats text
class RankWatch;     // core/rank_watch.h

/// One GPU of this machine.
struct GpuInfo {
  int index = 0;  // as CUDA counts, CUDA_VISIBLE_DEVICES heeded
  std::string name;
  size_t memory_bytes = 0;
  int multiprocessors = 0;
  int major = 0, minor = 0;  // compute capability
  uint64_t identity = 0;     // of the GPU itself: the same for every process that sees it, whatever its index there
};

struct FoundGpus {
  std::vector<GpuInfo> gpus;
  std::string fault;      // why the driver could not say, in one sentence; empty where there simply is no GPU or no driver
  std::string built_for;  // the generations that this build has code for, ERMOE_GPUS with commas: "80,90a"
  bool can_join = false;  // the build has NCCL, over which GPUs of several processes work together
};

/// The GPUs that this process may use. Never throws on a broken driver: a run on the CPU does not need one.
FoundGpus find_gpus();

/// Times work on a stream as the GPU sees it, from when it has nothing before it to do until it is done.
class GpuTimer {
 public:
  virtual ~GpuTimer() = default;
  virtual void start() = 0;
  /// Seconds since `start`. Waits for the GPU.
  virtual double stop() = 0;
};

/// What a GPU did for a while: a kernel, a copy or a fill.
struct GpuActivity {
  std::string ops;   // in which ops it was queued, the outermost first: "linear/column_sum"; empty outside of any
  std::string name;  // the kernel's, or "[copy]", "[fill]"
  double start = 0;  // seconds since the profile began
  double seconds = 0;
};

/// Writes down what a GPU does and, as the listener of a context, for which op. It slows down the host that queues the work, not
/// the work. One at a time in a process.
class GpuProfiler : public OpListener {
 public:
  virtual void start() = 0;
  /// Everything since `start`, in the order of its beginning. Waits for the GPU.
  virtual std::vector<GpuActivity> stop() = 0;
};

struct FoundProfiler {
  std::unique_ptr<GpuProfiler> profiler;
  std::string fault;  // why there is none, in one sentence
};

struct FoundJpegEngine {
  std::unique_ptr<JpegEngine> engine;
  std::string fault;  // why there is none, in one sentence
};

/// Work of a stream that was written down and can be run again: the same kernels with the same arguments on the same memory.
class Recording {
 public:
  virtual ~Recording() = default;
  /// Queues all of it.
  virtual void replay() = 0;
};

/// One GPU in use: a stream of work with its libraries' handles. It must outlive all memory and work of its stream.
class Gpu {
 public:
  virtual ~Gpu() = default;
  virtual const GpuInfo& info() const = 0;
  virtual Stream stream() = 0;
  virtual std::unique_ptr<MemorySource> memory() = 0;
  /// Page-locked memory of the host, from which the GPU fetches by itself: for `MemorySource::start_upload`.
  virtual std::unique_ptr<MemorySource> page_locked() = 0;
  /// Waits until the stream is idle; throws what went wrong on it.
  virtual void synchronize() = 0;
  virtual std::unique_ptr<GpuTimer> timer() = 0;
  /// Writes down what `work` queues on the stream instead of running it. `work` must not wait for the GPU, and memory that it
  /// used must not come to hold anything else that has to outlive a replay.
  virtual std::unique_ptr<Recording> record(const std::function<void()>& work) = 0;
  /// Inside of `record`: `work` will run only where *flag, in the GPU's memory, is not 0 by then.
  virtual void record_if(const int32_t* flag, const std::function<void()>& work) = 0;
  virtual FoundProfiler profiler() = 0;
  /// The GPU's engines for JPEG files, beside its stream, where it has some and the build has nvJPEG. They keep about 130 MiB of its
  /// memory, and page-locked memory of the host for up to 512 MiB of pixels. The engine must not outlive the GPU.
  virtual FoundJpegEngine jpeg_engine() = 0;
  /// A communicator of the same ranks as `host`, for tensors of their GPUs as well as of the host; all of them call this at the same
  /// time, each with a GPU of its own. Each pair of GPUs exchanges a few bytes. Both arguments and the GPU must outlive it, and recordings
  /// of its collectives must be gone before it goes. Throws `InputError` where the build has no NCCL, `Error` naming ranks, hosts and
  /// GPUs where they do not come together.
  virtual std::unique_ptr<Communicator> join(Communicator& host, RankWatch& watch) = 0;
};

/// Makes GPU `index` this thread's current one. Throws `Error` where it cannot be used.
/// Two variables of the environment serve tests and memory checkers. With ERMOE_GPU_KERNELS=ampere a newer GPU runs the kernels of that
/// generation; with ERMOE_GPU_PRODUCTS=plain matrix products are all made by the engine's own plain kernel, which is slow.
std::unique_ptr<Gpu> make_gpu(int index);

}  // namespace ermoe
