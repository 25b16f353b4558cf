// The queue of what GPUs send each other, beside the engine's own. There is one for all communicators of a process, so all their
// collectives have one order, which is the same on every rank: two that each waited for the other's place on the GPU would hang.
#pragma once

#include "cuda/runtime/stream.h"

namespace ermoe::cuda {

/// Leaves the engine's stream and comes back to it by events, which a recording of the engine's stream takes in with what is between.
class CommStream {
 public:
  explicit CommStream(const Stream& engine);
  ~CommStream();
  CommStream(const CommStream&) = delete;
  CommStream& operator=(const CommStream&) = delete;

  cudaStream_t get() const { return stream_; }
  cudaStream_t engine() const { return engine_; }
  /// What this stream gets from now on waits for what the engine's got before.
  void fork();
  /// What the engine's stream gets from now on waits for what this one got since `fork`; nothing where that was waited for.
  void join();

 private:
  const StreamState& state_;
  const cudaStream_t engine_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t left_ = nullptr, done_ = nullptr;
  bool away_ = false;
};

}  // namespace ermoe::cuda
