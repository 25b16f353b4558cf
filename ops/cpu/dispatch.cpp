// Dispatch on the CPU. Both directions gather, so each thread owns what it writes and no order of threads shows.
#include "ops/kernels/dispatch.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void dispatch_forward(const DispatchDims& dims, const T* x, const int32_t* row_token, T* y) {
#pragma omp parallel for if (dims.rows * dims.width > 65536) schedule(static)
  for (int64_t row = 0; row < dims.rows; ++row) {
    if (row_token[row] < 0)
      std::fill_n(y + row * dims.width, dims.width, T(0));
    else
      std::copy_n(x + row_token[row] * dims.width, dims.width, y + row * dims.width);
  }
}

template <typename T>
void dispatch_backward(const DispatchDims& dims, const int32_t* slot_row, const T* dy, T* dx, Accumulate mode) {
#pragma omp parallel for if (dims.tokens * dims.slots * dims.width > 65536) schedule(static)
  for (int64_t n = 0; n < dims.tokens; ++n) {
    T* to = dx + n * dims.width;
    bool empty = mode == Accumulate::overwrite;  // the first term must overwrite
    for (int64_t slot = n * dims.slots; slot < (n + 1) * dims.slots; ++slot) {
      if (slot_row[slot] < 0) continue;
      const T* from = dy + slot_row[slot] * dims.width;
      if (empty)
        std::copy_n(from, dims.width, to);
      else
        for (int64_t d = 0; d < dims.width; ++d) to[d] += from[d];
      empty = false;
    }
    if (empty) std::fill_n(to, dims.width, T(0));
  }
}

template void dispatch_forward(const DispatchDims&, const float*, const int32_t*, float*);
template void dispatch_forward(const DispatchDims&, const double*, const int32_t*, double*);
template void dispatch_backward(const DispatchDims&, const int32_t*, const float*, float*, Accumulate);
template void dispatch_backward(const DispatchDims&, const int32_t*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
