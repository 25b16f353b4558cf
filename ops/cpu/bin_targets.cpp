// Distributions over bins on the CPU: a batch has few numbers.
#include "ops/kernels/bin_targets.h"

namespace ermoe::cpu {

template <typename T>
void bin_targets(const BinTargetsDims& dims, const T* numbers, T* targets) {
  for (int64_t b = 0; b < dims.batch; ++b)
    for (int64_t k = 0; k < dims.bins; ++k)
      targets[b * dims.bins + k] = static_cast<T>(bin_target(dims, static_cast<double>(numbers[b]), k));
}

template void bin_targets(const BinTargetsDims&, const float*, float*);
template void bin_targets(const BinTargetsDims&, const double*, double*);

}  // namespace ermoe::cpu
