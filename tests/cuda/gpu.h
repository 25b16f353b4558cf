// What tests of GPU kernels stand on: memory of the GPU that copies to and from vectors, and a way out where there is none.
#pragma once

#include "core/device.h"
#include "core/gpu_generations.h"
#include "cuda/factory.h"
#include "cuda/runtime/check.h"

#include <gtest/gtest.h>

#include <vector>

namespace ermoe::testing {

/// A fixture that skips its tests where no GPU is to be had.
class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    const FoundGpus found = find_gpus();
    if (found.gpus.empty()) GTEST_SKIP() << "no GPU here";
    if (!runs_on(found.built_for, found.gpus[0].major, found.gpus[0].minor)) GTEST_SKIP() << "no code for this GPU";
  }
};

/// `values` in the GPU's memory, `offset` elements behind an aligned address.
template <typename T>
class GpuArray {
 public:
  explicit GpuArray(const std::vector<T>& values, size_t offset = 0) : size_(values.size()), offset_(offset) {
    cuda::cuda_check(cudaMalloc(reinterpret_cast<void**>(&block_), (size_ + offset) * sizeof(T) + 1), "cudaMalloc");
    cuda::cuda_check(cudaMemcpy(data(), values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~GpuArray() { cudaFree(block_); }
  GpuArray(const GpuArray&) = delete;
  GpuArray& operator=(const GpuArray&) = delete;

  T* data() const { return block_ + offset_; }
  std::vector<T> values() const {
    std::vector<T> copy(size_);
    cuda::cuda_check(cudaMemcpy(copy.data(), data(), size_ * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return copy;
  }

 private:
  T* block_ = nullptr;
  size_t size_, offset_;
};

}  // namespace ermoe::testing
