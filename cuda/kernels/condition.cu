// The one thread that decides whether a part of recorded work runs. Contract: cuda/runtime/recording.h.
#include "cuda/runtime/recording.h"

#include "cuda/runtime/check.h"

namespace ermoe::cuda {
namespace {

__global__ void condition_kernel(cudaGraphConditionalHandle handle, const int32_t* flag) { cudaGraphSetConditional(handle, *flag != 0); }

}  // namespace

void set_condition(cudaStream_t stream, cudaGraphConditionalHandle handle, const int32_t* flag) {
  condition_kernel<<<1, 1, 0, stream>>>(handle, flag);
  cuda_check(cudaGetLastError(), "set_condition");
}

}  // namespace ermoe::cuda
