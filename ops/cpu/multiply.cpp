// The elementwise product on the CPU.
#include "ops/kernels/multiply.h"

#include "ops/cpu/store.h"

namespace ermoe::cpu {

template <typename T>
void multiply(int64_t n, const T* a, const T* b, T* y, Accumulate mode) {
  store_parallel(n, y, mode, [=](int64_t i) { return a[i] * b[i]; });
}

template void multiply(int64_t, const float*, const float*, float*, Accumulate);
template void multiply(int64_t, const double*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
