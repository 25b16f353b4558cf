#include "ops/kernels/project_off.h"

#include "ops/cpu/blas.h"

namespace ermoe::cpu {

template <typename T>
void project_off_basis(const ProjectOffDims& dims, const T* basis, T* rest, T* products) {
  const int64_t row = dims.all * dims.R;
  for (int64_t e = 0; e < dims.E; ++e) {
    const T* own = basis + (dims.first + e) * dims.R;
    T *columns = rest + e * dims.D * dims.c, *product = products + e * dims.R * dims.c;  // B_eᵀ rest_e
    gemm(Trans::yes, Trans::no, dims.R, dims.c, dims.D, T(1), own, row, columns, dims.c, T(0), product, dims.c);
    gemm(Trans::no, Trans::no, dims.D, dims.c, dims.R, T(-1), own, row, product, dims.c, T(1), columns, dims.c);
  }
}

template void project_off_basis(const ProjectOffDims&, const float*, float*, float*);
template void project_off_basis(const ProjectOffDims&, const double*, double*, double*);

}  // namespace ermoe::cpu
