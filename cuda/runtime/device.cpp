#include "cuda/runtime/device.h"

#include "core/error.h"
#include "core/hash.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/nccl_comm.h"

namespace ermoe::cuda {

int device_count() {
  int count = 0;
  cuda_check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  return count;
}

GpuInfo device_info(int index) {
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  return {.index = index,
          .name = properties.name,
          .memory_bytes = properties.totalGlobalMem,
          .multiprocessors = properties.multiProcessorCount,
          .major = properties.major,
          .minor = properties.minor,
          .identity = fnv1a(std::as_bytes(std::span(properties.uuid.bytes)))};
}

CurrentDevice::CurrentDevice(int index) {
  cuda_check(cudaGetDevice(&before_), "cudaGetDevice");
  cuda_check(cudaSetDevice(index), "cudaSetDevice");
}

CurrentDevice::~CurrentDevice() { cudaSetDevice(before_); }

}  // namespace ermoe::cuda

namespace ermoe {

FoundGpus find_gpus() {
  FoundGpus found{.gpus = {}, .fault = {}, .built_for = ERMOE_GPUS, .can_join = cuda::has_nccl()};
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  // Without any driver the runtime reports its version as insufficient, and the driver's as 0.
  int driver = 0;
  const bool no_driver = cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0;
  if (status == cudaErrorNoDevice || no_driver) return found;
  try {
    cuda::cuda_check(status, "cudaGetDeviceCount");
    for (int i = 0; i < count; ++i) found.gpus.push_back(cuda::device_info(i));
  } catch (const Error& e) {
    found.gpus.clear();
    found.fault = e.what();
  }
  return found;
}

}  // namespace ermoe
