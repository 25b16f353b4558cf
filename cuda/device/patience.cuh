// How long device code waits for other device code.
#pragma once

#include <cstdint>

namespace ermoe::cuda {

/// Turns a wait that would never end into an error of the launch: call it after each failed try.
class Patience {
 public:
  __device__ __forceinline__ void lose() {
    uint64_t now = 0;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    if (start_ == 0) start_ = now;
    if (now - start_ > limit) __trap();
  }

 private:
  static constexpr uint64_t limit = 20'000'000'000;  // nanoseconds
  uint64_t start_ = 0;
};

}  // namespace ermoe::cuda
