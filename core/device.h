// Where memory lies and work runs, and in which queue. On a CPU a stream is a no-op.
#pragma once

namespace ermoe {

struct Device {
  enum class Kind { cpu, cuda };
  Kind kind = Kind::cpu;
  int index = 0;

  bool is_cuda() const { return kind == Kind::cuda; }
  bool operator==(const Device&) const = default;
};

/// A queue of device work. `handle` is the backend's own stream (a cudaStream_t), null on a CPU.
struct Stream {
  void* handle = nullptr;
};

}  // namespace ermoe
