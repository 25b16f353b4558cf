// What a stream of GPU work brings along: the queue itself, the libraries' handles and their scratch memory. A kernel's
// launcher gets a `Stream` and reads it through `native` and `state_of`. Read next: cuda/runtime/gpu.cpp.
#pragma once

#include "core/device.h"

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <source_location>

namespace ermoe::cuda {

class GemmPlans;  // cuda/runtime/gemm.h

/// Behind `Stream::handle` of a GPU.
struct StreamState {
  cudaStream_t stream = nullptr;
  cublasLtHandle_t blas_lt = nullptr;
  void* scratch = nullptr;  // for matrix products: one runs at a time
  size_t scratch_bytes = 0;
  GemmPlans* gemm_plans = nullptr;  // algorithms found so far
  bool library_products = true;     // false: every product by `plain_gemm`
  int multiprocessors = 0;
  size_t block_shared_bytes = 0;  // of shared memory, that a block may ask for
  int major = 0;                  // compute capability; 9 has wgmma and bulk copies. 8 where that path was forced for a test
};

inline const StreamState& state_of(const Stream& stream) { return *static_cast<const StreamState*>(stream.handle); }
inline cudaStream_t native(const Stream& stream) { return state_of(stream).stream; }

/// Throws as `cuda_check` does.
void blas_check(cublasStatus_t status, const char* api, const std::source_location& where = std::source_location::current());

}  // namespace ermoe::cuda
