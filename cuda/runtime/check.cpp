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

}  // namespace

void cuda_check(cudaError_t status, const char* api, const std::source_location& where) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears what is not fatal: the next check must report its own fault
  fail_at(api, cudaGetErrorString(status), cudaGetErrorName(status), where);
}

void blas_check(cublasStatus_t status, const char* api, const std::source_location& where) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail_at(api, cublasGetStatusString(status), cublasGetStatusName(status), where);
}

}  // namespace ermoe::cuda
