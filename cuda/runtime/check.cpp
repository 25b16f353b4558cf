#include "cuda/runtime/check.h"

#include "core/error.h"

#include <unistd.h>

#include <string_view>

namespace ermoe::cuda {

void cuda_check(cudaError_t status, const char* api, const std::source_location& where) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears what is not fatal: the next check must report its own fault
  std::string_view file = where.file_name();
  file.remove_prefix(file.find_last_of('/') + 1);
  char host[256] = "unknown host";
  gethostname(host, sizeof(host) - 1);
  fail("[cuda] {}: {} ({}, {}:{} on {})", api, cudaGetErrorString(status), cudaGetErrorName(status), file, where.line(), host);
}

}  // namespace ermoe::cuda
