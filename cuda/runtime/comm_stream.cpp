#include "cuda/runtime/comm_stream.h"

#include "core/error.h"
#include "cuda/runtime/check.h"

namespace ermoe::cuda {

CommStream::CommStream(const Stream& engine) : state_(state_of(engine)), engine_(native(engine)) {
  // Before the engine's own kernels: another GPU waits for what is sent.
  int least = 0, greatest = 0;
  cuda_check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
  cuda_check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "cudaStreamCreate");
  cuda_check(cudaEventCreateWithFlags(&left_, cudaEventDisableTiming), "cudaEventCreate");
  cuda_check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreate");
}

CommStream::~CommStream() {
  cudaEventDestroy(done_);
  cudaEventDestroy(left_);
  cudaStreamDestroy(stream_);
}

void CommStream::fork() {
  check(state_.stream == engine_, "[nccl] a collective inside of Gpu::record_if: not every rank would run it");
  cuda_check(cudaEventRecord(left_, engine_), "cudaEventRecord");
  cuda_check(cudaStreamWaitEvent(stream_, left_, 0), "cudaStreamWaitEvent");
  away_ = true;
}

void CommStream::join() {
  if (!away_) return;
  away_ = false;
  cuda_check(cudaEventRecord(done_, stream_), "cudaEventRecord");
  cuda_check(cudaStreamWaitEvent(engine_, done_, 0), "cudaStreamWaitEvent");
}

}  // namespace ermoe::cuda
