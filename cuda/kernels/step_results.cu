// A training step's results on the GPU: single threads, a few hundred bytes. Contract: ops/kernels/step_results.h.
#include "ops/kernels/step_results.h"

#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

__global__ void begin_kernel(StepResults* results) {
  results->loss = results->extra_loss = 0;
  results->fault = 0;
}

template <typename T>
__global__ void add_kernel(ResultTerms<T> terms, StepResults* results) {
  add_terms(terms, *results);
}

__global__ void flag_kernel(const StepResults* results, float* flag) { *flag = unsound(*results) ? 1.0f : 0.0f; }

}  // namespace

void begin_results(const Stream& stream, StepResults* results) {
  begin_kernel<<<1, 1, 0, native(stream)>>>(results);
  cuda_check(cudaGetLastError(), "begin_results");
}

template <typename T>
void add_results(const Stream& stream, const ResultTerms<T>& terms, StepResults* results) {
  add_kernel<<<1, 1, 0, native(stream)>>>(terms, results);
  cuda_check(cudaGetLastError(), "add_results");
}

void flag_faults(const Stream& stream, const StepResults* results, float* flag) {
  flag_kernel<<<1, 1, 0, native(stream)>>>(results, flag);
  cuda_check(cudaGetLastError(), "flag_faults");
}

template void add_results(const Stream&, const ResultTerms<float>&, StepResults*);

}  // namespace ermoe::cuda
