// Product with a constant on the CPU: one pass over flat memory.
#include "ops/kernels/scale.h"

#include "ops/cpu/store.h"

namespace ermoe::cpu {

template <typename T>
void scale(const ScaleDims& dims, const T* x, T* y, Accumulate mode) {
  const auto factor = static_cast<T>(dims.factor);
  store_parallel(dims.numel, y, mode, [=](int64_t i) { return factor * x[i]; });
}

template void scale(const ScaleDims&, const float*, float*, Accumulate);
template void scale(const ScaleDims&, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
