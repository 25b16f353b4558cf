#include "cuda/runtime/timer.h"

#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

class Event {
 public:
  Event() { cuda_check(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class EventTimer final : public GpuTimer {
 public:
  explicit EventTimer(const Stream& stream) : stream_(native(stream)) {}

  void start() override { cuda_check(cudaEventRecord(begin_.get(), stream_), "cudaEventRecord"); }
  double stop() override {
    cuda_check(cudaEventRecord(end_.get(), stream_), "cudaEventRecord");
    cuda_check(cudaEventSynchronize(end_.get()), "cudaEventSynchronize");
    float milliseconds = 0;
    cuda_check(cudaEventElapsedTime(&milliseconds, begin_.get(), end_.get()), "cudaEventElapsedTime");
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  cudaStream_t stream_;
  Event begin_, end_;
};

}  // namespace

std::unique_ptr<GpuTimer> make_timer(const Stream& stream) { return std::make_unique<EventTimer>(stream); }

}  // namespace ermoe::cuda
