#include "tools/thread_waiting.h"

#include <unistd.h>

#include <cstdlib>

namespace ermoe {

void settle_thread_waiting(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  ::setenv("GOMP_SPINCOUNT", "30000", 1);  // also what keeps the second start from a third
  ::execv("/proc/self/exe", argv);
}

}  // namespace ermoe
