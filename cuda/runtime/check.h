// Faults of the CUDA runtime, in the house's one error style. Read next: cuda/runtime/device.h.
#pragma once

#include <cuda_runtime_api.h>

#include <source_location>

namespace ermoe::cuda {

/// Throws `Error` unless `status` is success: "[cuda] cudaSetDevice: invalid device ordinal (cudaErrorInvalidDevice,
/// device.cpp:41 on HOST)"; `OutOfMemory` with what the GPU has free where that is the fault. `api` names the call. A launch is checked by
/// `cuda_check(cudaGetLastError(), "gelu_forward")`.
void cuda_check(cudaError_t status, const char* api, const std::source_location& where = std::source_location::current());

}  // namespace ermoe::cuda
