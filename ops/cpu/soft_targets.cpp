// Label smoothing on the CPU: fill, then set one element a row.
#include "ops/kernels/soft_targets.h"

#include "core/error.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void soft_targets(const SoftTargetsDims& dims, const int32_t* labels, T* targets) {
  const double rest = dims.smoothing / static_cast<double>(dims.classes);
  std::fill_n(targets, dims.batch * dims.classes, static_cast<T>(rest));
  for (int64_t b = 0; b < dims.batch; ++b) {
    check(labels[b] >= 0 && labels[b] < dims.classes, "[soft_targets] label {} of sample {} is outside 0..{}", labels[b], b,
          dims.classes - 1);
    targets[b * dims.classes + labels[b]] = static_cast<T>(1 - dims.smoothing + rest);
  }
}

template void soft_targets(const SoftTargetsDims&, const int32_t*, float*);
template void soft_targets(const SoftTargetsDims&, const int32_t*, double*);

}  // namespace ermoe::cpu
