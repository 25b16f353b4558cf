// Leading columns on the CPU. The strided side is walked in short rows of v, so that cache lines are used whole.
#include "ops/kernels/leading_basis.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void leading_basis_forward(const LeadingBasisDims& dims, const Master<T>* v, T* basis) {
#pragma omp parallel for schedule(static) if (dims.experts * dims.rank * dims.width > 32768)
  for (int64_t e = 0; e < dims.experts; ++e)
    for (int64_t d = 0; d < dims.width; ++d)
      for (int64_t r = 0; r < dims.rank; ++r) basis[(e * dims.rank + r) * dims.width + d] = v[(e * dims.width + d) * dims.columns + r];
}

template <typename T>
void leading_basis_backward(const LeadingBasisDims& dims, const T* dbasis, Master<T>* dv, Accumulate mode) {
#pragma omp parallel for schedule(static) if (dims.experts * dims.rank * dims.width > 32768)
  for (int64_t e = 0; e < dims.experts; ++e)
    for (int64_t d = 0; d < dims.width; ++d) {
      T* to = dv + (e * dims.width + d) * dims.columns;
      if (mode == Accumulate::overwrite) std::fill_n(to, dims.columns, T(0));
      for (int64_t r = 0; r < dims.rank; ++r) to[r] += dbasis[(e * dims.rank + r) * dims.width + d];
    }
}

template void leading_basis_forward(const LeadingBasisDims&, const float*, float*);
template void leading_basis_forward(const LeadingBasisDims&, const double*, double*);
template void leading_basis_backward(const LeadingBasisDims&, const float*, float*, Accumulate);
template void leading_basis_backward(const LeadingBasisDims&, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
