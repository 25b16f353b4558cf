// An upper bound on the CPU: one pass over flat memory.
#include "ops/kernels/at_most.h"

#include "ops/cpu/store.h"

namespace ermoe::cpu {

template <typename T>
void at_most_forward(const AtMostDims& dims, const T* x, T* y) {
  const auto bound = static_cast<T>(dims.bound);
  store_parallel(dims.numel, y, Accumulate::overwrite, [=](int64_t i) { return x[i] >= bound ? bound : x[i]; });
}

template <typename T>
void at_most_backward(const AtMostDims& dims, const T* x, const T* dy, T* dx, Accumulate mode) {
  const auto bound = static_cast<T>(dims.bound);
  store_parallel(dims.numel, dx, mode, [=](int64_t i) { return x[i] >= bound ? T(0) : dy[i]; });
}

template void at_most_forward(const AtMostDims&, const float*, float*);
template void at_most_forward(const AtMostDims&, const double*, double*);
template void at_most_backward(const AtMostDims&, const float*, const float*, float*, Accumulate);
template void at_most_backward(const AtMostDims&, const double*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
