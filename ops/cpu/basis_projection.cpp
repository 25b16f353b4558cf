// Centring rows on the CPU. It is done before the product, not after it: a mean that dominates would cancel there.
#include "ops/kernels/basis_projection.h"

namespace ermoe::cpu {

template <typename T>
void center_rows(const CenterRowsDims& dims, const T* x, const T* mean, T* y) {
#pragma omp parallel for if (dims.rows * dims.width > 65536) schedule(static)
  for (int64_t n = 0; n < dims.rows; ++n) {
    const T* from = x + n * dims.width;
    T* to = y + n * dims.width;
    for (int64_t d = 0; d < dims.width; ++d) to[d] = from[d] - mean[d];
  }
}

template void center_rows(const CenterRowsDims&, const float*, const float*, float*);
template void center_rows(const CenterRowsDims&, const double*, const double*, double*);

}  // namespace ermoe::cpu
