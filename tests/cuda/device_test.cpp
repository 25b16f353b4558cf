// Which GPUs there are, and how faults of the CUDA runtime read.
#include "cuda/runtime/device.h"

#include "core/error.h"
#include "tests/cuda/gpu.h"

namespace ermoe::testing {
namespace {

TEST(FindGpus, AnswersWithAndWithoutOne) {
  const FoundGpus found = find_gpus();
  EXPECT_TRUE(found.gpus.empty() || found.fault.empty());
  for (size_t i = 0; i < found.gpus.size(); ++i) {
    EXPECT_EQ(found.gpus[i].index, static_cast<int>(i));
    EXPECT_FALSE(found.gpus[i].name.empty());
    EXPECT_GT(found.gpus[i].memory_bytes, size_t{1} << 28);
    EXPECT_GT(found.gpus[i].multiprocessors, 0);
    EXPECT_GE(found.gpus[i].major, 5);
  }
}

TEST(CudaCheck, SaysCallTextFileAndLine) {
  EXPECT_NO_THROW(cuda::cuda_check(cudaSuccess, "cudaMalloc"));
  try {
    cuda::cuda_check(cudaErrorInvalidValue, "cudaMemcpy");
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& e) {
    const std::string message = e.what();
    EXPECT_TRUE(message.starts_with("[cuda] cudaMemcpy: invalid argument (cudaErrorInvalidValue, device_test.cpp:")) << message;
  }
}

TEST(CudaCheck, MemoryThatIsMissingIsAFaultOfItsOwn) {
  try {
    cuda::cuda_check(cudaErrorMemoryAllocation, "cudaGraphInstantiate");
    ADD_FAILURE() << "nothing was thrown";
  } catch (const OutOfMemory& e) {
    const std::string message = e.what();
    EXPECT_TRUE(message.starts_with("[cuda] cudaGraphInstantiate: out of memory on the GPU (cudaErrorMemoryAllocation)")) << message;
  }
}

using Devices = OnGpu;

TEST_F(Devices, ThatDoNotExistAreNamedFaults) { EXPECT_THROW(cuda::device_info(cuda::device_count()), Error); }

TEST_F(Devices, TheCurrentOneComesBack) {
  const int last = cuda::device_count() - 1;
  int current = -1;
  {
    const cuda::CurrentDevice device(last);
    cudaGetDevice(&current);
    EXPECT_EQ(current, last);
  }
  cudaGetDevice(&current);
  EXPECT_EQ(current, 0);
}

}  // namespace
}  // namespace ermoe::testing
