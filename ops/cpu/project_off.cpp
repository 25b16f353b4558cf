#include "ops/kernels/project_off.h"

#include "ops/cpu/blas.h"

namespace ermoe::cpu {

template <typename T>
void project_off_basis(Workspace& workspace, const ProjectOffDims& dims, const T* basis, T* rest) {
  const auto product = workspace.borrow<T>(dims.R * dims.c);  // B_eᵀ rest_e
  const int64_t row = dims.E * dims.R;
  for (int64_t e = 0; e < dims.E; ++e) {
    const T* own = basis + e * dims.R;
    T* columns = rest + e * dims.D * dims.c;
    gemm(Trans::yes, Trans::no, dims.R, dims.c, dims.D, T(1), own, row, columns, dims.c, T(0), product.data(), dims.c);
    gemm(Trans::no, Trans::no, dims.D, dims.c, dims.R, T(-1), own, row, product.data(), dims.c, T(1), columns, dims.c);
  }
}

template void project_off_basis(Workspace&, const ProjectOffDims&, const float*, float*);
template void project_off_basis(Workspace&, const ProjectOffDims&, const double*, double*);

}  // namespace ermoe::cpu
