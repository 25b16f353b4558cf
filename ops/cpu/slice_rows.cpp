#include "ops/kernels/slice_rows.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void slice_rows_backward(const SliceRowsDims& dims, const T* dy, T* dx, Accumulate mode) {
  T* part = dx + dims.begin;
  if (mode == Accumulate::add) {
    for (int64_t i = 0; i < dims.count; ++i) part[i] += dy[i];
    return;
  }
  std::fill(dx, part, T(0));
  std::copy_n(dy, dims.count, part);
  std::fill(part + dims.count, dx + dims.numel, T(0));
}

template void slice_rows_backward(const SliceRowsDims&, const float*, float*, Accumulate);
template void slice_rows_backward(const SliceRowsDims&, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
