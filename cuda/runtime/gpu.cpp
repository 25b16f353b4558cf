#include "core/error.h"
#include "core/gpu_generations.h"
#include "cuda/factory.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/device.h"
#include "cuda/runtime/gemm.h"
#include "cuda/runtime/jpeg_engine.h"
#include "cuda/runtime/nccl_comm.h"
#include "cuda/runtime/profiler.h"
#include "cuda/runtime/recording.h"
#include "cuda/runtime/stream.h"
#include "cuda/runtime/timer.h"

#include <cstdlib>
#include <string_view>

namespace ermoe {
namespace {

using cuda::blas_check;
using cuda::cuda_check;

/// Device memory by cudaMalloc. Blocks are reused in the order of one stream, so nobody waits before a block is given back.
/// Uploads that run beside that stream have a queue of their own, which waits for what the stream was given before: a block that
/// they write may just have been in use there.
class GpuSource final : public MemorySource {
 public:
  GpuSource(int index, Stream stream) : index_(index), stream_(stream) {
    cuda_check(cudaStreamCreateWithFlags(&uploads_, cudaStreamNonBlocking), "cudaStreamCreate");
    cuda_check(cudaEventCreateWithFlags(&given_, cudaEventDisableTiming), "cudaEventCreate");
  }
  ~GpuSource() override {
    cudaStreamSynchronize(uploads_);
    cudaEventDestroy(given_);
    cudaStreamDestroy(uploads_);
  }

  Device device() const override { return {Device::Kind::cuda, index_}; }
  Stream stream() const override { return stream_; }

  void* allocate(size_t bytes) override {
    void* block = nullptr;
    const cudaError_t status = cudaMalloc(&block, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    cuda_check(status, "cudaMalloc");
    return block;
  }
  void release(void* block, size_t) noexcept override { cudaFree(block); }
  size_t available() const override {
    size_t free = 0, total = 0;
    cuda_check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return free;
  }

  void upload(void* to, const void* host, size_t bytes) override {
    cuda_check(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, queue()), "upload");
    wait();
  }
  void start_upload(void* to, const void* host, size_t bytes) override {
    cuda_check(cudaEventRecord(given_, queue()), "cudaEventRecord");
    cuda_check(cudaStreamWaitEvent(uploads_, given_, 0), "cudaStreamWaitEvent");
    cuda_check(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, uploads_), "start_upload");
  }
  void finish_uploads() override { cuda_check(cudaStreamSynchronize(uploads_), "finish_uploads"); }
  void download(void* host, const void* from, size_t bytes) override {
    cuda_check(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, queue()), "download");
    wait();
  }
  void copy(void* to, const void* from, size_t bytes) override {
    cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, queue()), "copy");
  }
  void set(void* to, uint8_t byte, size_t bytes) override { cuda_check(cudaMemsetAsync(to, byte, bytes, queue()), "set"); }

 private:
  cudaStream_t queue() const { return cuda::native(stream_); }
  void wait() const { cuda_check(cudaStreamSynchronize(queue()), "cudaStreamSynchronize"); }

  int index_;
  Stream stream_;
  cudaStream_t uploads_ = nullptr;
  cudaEvent_t given_ = nullptr;  // the last point of the stream that uploads wait for
};

/// Host memory by cudaHostAlloc. Threads that load data allocate here too, so the current GPU is set each time.
class PageLockedSource final : public MemorySource {
 public:
  explicit PageLockedSource(int index) : index_(index) {}

  Device device() const override { return {}; }
  Stream stream() const override { return {}; }

  void* allocate(size_t bytes) override {
    const cuda::CurrentDevice current(index_);
    void* block = nullptr;
    if (cudaHostAlloc(&block, bytes, cudaHostAllocPortable) == cudaSuccess) return block;
    cudaGetLastError();
    return nullptr;
  }
  void release(void* block, size_t) noexcept override { cudaFreeHost(block); }

  size_t available() const override { return host_->available(); }
  void upload(void* to, const void* host, size_t bytes) override { host_->upload(to, host, bytes); }
  void download(void* host, const void* from, size_t bytes) override { host_->download(host, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { host_->copy(to, from, bytes); }
  void set(void* to, uint8_t byte, size_t bytes) override { host_->set(to, byte, bytes); }

 private:
  int index_;
  std::unique_ptr<MemorySource> host_ = make_host_source();  // for all that is the same in any memory of the host
};

bool environment_says(const char* name, std::string_view wanted) {
  const char* value = std::getenv(name);
  return value != nullptr && value == wanted;
}

/// What a stream brings along, given back in any case.
class OwnedStream {
 public:
  explicit OwnedStream(const GpuInfo& info) {
    try {
      make(info);
    } catch (...) {
      give_back();
      throw;
    }
  }
  ~OwnedStream() { give_back(); }
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;

  cuda::StreamState state;

 private:
  void make(const GpuInfo& info) {
    cuda_check(cudaSetDevice(info.index), "cudaSetDevice");
    cuda_check(cudaStreamCreateWithFlags(&state.stream, cudaStreamNonBlocking), "cudaStreamCreate");
    state.scratch_bytes = size_t{32} << 20;  // what cuBLAS asks for on Hopper
    cuda_check(cudaMalloc(&state.scratch, state.scratch_bytes), "cudaMalloc");
    blas_check(cublasLtCreate(&state.blas_lt), "cublasLtCreate");
    state.gemm_plans = &plans_;
    // Memory checkers see only a part of what cublasLt's kernels write.
    state.library_products = !environment_says("ERMOE_GPU_PRODUCTS", "plain");
    state.multiprocessors = info.multiprocessors;
    int shared = 0;
    cuda_check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, info.index), "cudaDeviceGetAttribute");
    state.block_shared_bytes = static_cast<size_t>(shared);
    const bool has_hopper = names_generation(ERMOE_GPUS, "90a");
    const bool as_ampere = info.major > 8 && environment_says("ERMOE_GPU_KERNELS", "ampere");
    state.major = as_ampere || (info.major == 9 && !has_hopper) ? 8 : info.major;
  }
  void give_back() {
    if (state.stream != nullptr) cudaStreamSynchronize(state.stream);
    if (state.blas_lt != nullptr) cublasLtDestroy(state.blas_lt);
    if (state.scratch != nullptr) cudaFree(state.scratch);
    if (state.stream != nullptr) cudaStreamDestroy(state.stream);
  }

  cuda::GemmPlans plans_;
};

class OneGpu final : public Gpu {
 public:
  explicit OneGpu(int index) : info_(cuda::device_info(index)), stream_(info_) {}

  const GpuInfo& info() const override { return info_; }
  Stream stream() override { return {&stream_.state}; }
  std::unique_ptr<MemorySource> memory() override { return std::make_unique<GpuSource>(info_.index, stream()); }
  std::unique_ptr<MemorySource> page_locked() override { return std::make_unique<PageLockedSource>(info_.index); }
  void synchronize() override { cuda_check(cudaStreamSynchronize(stream_.state.stream), "cudaStreamSynchronize"); }
  std::unique_ptr<GpuTimer> timer() override { return cuda::make_timer(stream()); }
  std::unique_ptr<Recording> record(const std::function<void()>& work) override { return cuda::record(stream_.state, work); }
  void record_if(const int32_t* flag, const std::function<void()>& work) override { cuda::record_if(stream_.state, flag, work); }
  FoundProfiler profiler() override { return cuda::find_profiler(stream()); }
  FoundJpegEngine jpeg_engine() override { return cuda::find_jpeg_engine(info_, page_locked()); }
  std::unique_ptr<Communicator> join(Communicator& host, RankWatch& watch) override {
    CachingAllocator of_the_test(memory());
    return cuda::join_over_nccl(host, watch, info_, stream(), of_the_test);
  }

 private:
  GpuInfo info_;
  OwnedStream stream_;
};

}  // namespace

std::unique_ptr<Gpu> make_gpu(int index) { return std::make_unique<OneGpu>(index); }

}  // namespace ermoe
