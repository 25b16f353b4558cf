#include "core/error.h"
#include "cuda/factory.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/device.h"
#include "cuda/runtime/gemm.h"
#include "cuda/runtime/profiler.h"
#include "cuda/runtime/stream.h"
#include "cuda/runtime/timer.h"

#include <cstdlib>
#include <string_view>

namespace ermoe {
namespace {

using cuda::blas_check;
using cuda::cuda_check;

/// Device memory by cudaMalloc. Blocks are reused in the order of one stream, so nobody waits before a block is given back.
class GpuSource final : public MemorySource {
 public:
  GpuSource(int index, Stream stream) : index_(index), stream_(stream) {}

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

  void upload(void* to, const void* host, size_t bytes) override {
    cuda_check(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, queue()), "upload");
    wait();
  }
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
};

/// ERMOE_GPU_PRODUCTS=plain keeps every kernel our own: memory checkers see only a part of what cublasLt's kernels write.
bool wants_library_products() {
  const char* products = std::getenv("ERMOE_GPU_PRODUCTS");
  return products == nullptr || std::string_view(products) != "plain";
}

class OneGpu final : public Gpu {
 public:
  OneGpu(int index, KernelPath path) : info_(cuda::device_info(index)) {
    cuda_check(cudaSetDevice(index), "cudaSetDevice");
    cuda_check(cudaStreamCreateWithFlags(&state_.stream, cudaStreamNonBlocking), "cudaStreamCreate");
    state_.scratch_bytes = size_t{32} << 20;  // what cuBLAS asks for on Hopper
    cuda_check(cudaMalloc(&state_.scratch, state_.scratch_bytes), "cudaMalloc");
    blas_check(cublasCreate(&state_.blas), "cublasCreate");
    blas_check(cublasLtCreate(&state_.blas_lt), "cublasLtCreate");
    blas_check(cublasSetStream(state_.blas, state_.stream), "cublasSetStream");
    blas_check(cublasSetWorkspace(state_.blas, state_.scratch, state_.scratch_bytes), "cublasSetWorkspace");
    state_.gemm_plans = &plans_;
    state_.library_products = wants_library_products();
    state_.multiprocessors = info_.multiprocessors;
    state_.major = path == KernelPath::ampere ? 8 : info_.major;
  }
  ~OneGpu() override {
    cudaStreamSynchronize(state_.stream);
    cublasLtDestroy(state_.blas_lt);
    cublasDestroy(state_.blas);
    cudaFree(state_.scratch);
    cudaStreamDestroy(state_.stream);
  }

  const GpuInfo& info() const override { return info_; }
  Stream stream() override { return {&state_}; }
  std::unique_ptr<MemorySource> memory() override { return std::make_unique<GpuSource>(info_.index, stream()); }
  void synchronize() override { cuda_check(cudaStreamSynchronize(state_.stream), "cudaStreamSynchronize"); }
  std::unique_ptr<GpuTimer> timer() override { return cuda::make_timer(stream()); }
  FoundProfiler profiler() override { return cuda::find_profiler(stream()); }

 private:
  GpuInfo info_;
  cuda::GemmPlans plans_;
  cuda::StreamState state_;
};

}  // namespace

std::unique_ptr<Gpu> make_gpu(int index, KernelPath path) { return std::make_unique<OneGpu>(index, path); }

}  // namespace ermoe
