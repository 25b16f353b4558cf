// Bounds on values on the CPU: one pass over flat memory.
#include "ops/kernels/clamp_values.h"

#include "ops/cpu/store.h"

namespace ermoe::cpu {

template <typename T>
void clamp_values(const ClampDims& dims, T* t) {
  const auto low = static_cast<T>(dims.low), high = static_cast<T>(dims.high);
  store_parallel(dims.numel, t, Accumulate::overwrite, [=](int64_t i) { return t[i] < low ? low : t[i] > high ? high : t[i]; });
}

template void clamp_values(const ClampDims&, float*);
template void clamp_values(const ClampDims&, double*);

}  // namespace ermoe::cpu
