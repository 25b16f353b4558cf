#include "cuda/runtime/check.h"

#include "core/error.h"
#include "cuda/runtime/stream.h"

#include <unistd.h>

#include <string_view>

namespace ermoe::cuda {
namespace {

[[noreturn]] void fail_at(const char* api, const char* text, const char* name, const std::source_location& where) {
  std::string_view file = where.file_name();
  file.remove_prefix(file.find_last_of('/') + 1);
  char host[256] = "unknown host";
  gethostname(host, sizeof(host) - 1);
  fail("[cuda] {}: {} ({}, {}:{} on {})", api, text, name, file, where.line(), host);
}

/// Without an allocator's help: what CUDA itself takes for graphs, handles and code.
[[noreturn]] void fail_for_memory(const char* api, const char* name) {
  size_t free = 0, total = 0;
  const bool known = cudaMemGetInfo(&free, &total) == cudaSuccess;
  cudaGetLastError();
  const auto mib = [](size_t bytes) { return static_cast<double>(bytes) / 1048576.0; };
  throw OutOfMemory(fmt::format("[cuda] {}: out of memory on the GPU ({}){}", api, name,
                                known ? fmt::format(", {:.1f} of {:.1f} MiB free", mib(free), mib(total)) : ""));
}

}  // namespace

void cuda_check(cudaError_t status, const char* api, const std::source_location& where) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears what is not fatal: the next check must report its own fault
  if (status == cudaErrorMemoryAllocation) fail_for_memory(api, cudaGetErrorName(status));
  fail_at(api, cudaGetErrorString(status), cudaGetErrorName(status), where);
}

void blas_check(cublasStatus_t status, const char* api, const std::source_location& where) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  if (status == CUBLAS_STATUS_ALLOC_FAILED) fail_for_memory(api, cublasGetStatusName(status));
  fail_at(api, cublasGetStatusString(status), cublasGetStatusName(status), where);
}

}  // namespace ermoe::cuda
