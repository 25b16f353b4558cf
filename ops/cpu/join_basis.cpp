// Copies of column blocks; once an optimizer step, so memory speed is all it needs.
#include "ops/kernels/join_basis.h"

#include <algorithm>

namespace ermoe::cpu {
namespace {

template <typename T>
void put(const T* from, T* to, int64_t count, Accumulate mode) {
  if (mode == Accumulate::overwrite)
    std::copy(from, from + count, to);
  else
    for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

}  // namespace

template <typename T>
void join_basis_forward(const JoinBasisDims& dims, const T* basis, const T* rest, const T* free, T* v) {
  const int64_t E = dims.E, Ef = dims.Ef, D = dims.D, R = dims.R, r = dims.r;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < E * D; ++row) {
    const int64_t e = row / D, d = row % D;
    put(basis + (d * dims.all + dims.first + e) * R, v + row * r, R, Accumulate::overwrite);
    put(rest + row * (r - R), v + row * r + R, r - R, Accumulate::overwrite);
  }
  if (Ef > 0) put(free, v + E * D * r, Ef * D * r, Accumulate::overwrite);
}

template <typename T>
void join_basis_backward(const JoinBasisDims& dims, const T* dv, Destination<T> dbasis, Destination<T> drest, Destination<T> dfree) {
  const int64_t E = dims.E, Ef = dims.Ef, D = dims.D, R = dims.R, r = dims.r;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < E * D; ++row) {
    const int64_t e = row / D, d = row % D;
    if (dbasis.data != nullptr) put(dv + row * r, dbasis.data + (d * dims.all + dims.first + e) * R, R, dbasis.mode);
    if (drest.data != nullptr) put(dv + row * r + R, drest.data + row * (r - R), r - R, drest.mode);
  }
  if (dfree.data != nullptr) put(dv + E * D * r, dfree.data, Ef * D * r, dfree.mode);
}

template void join_basis_forward(const JoinBasisDims&, const float*, const float*, const float*, float*);
template void join_basis_forward(const JoinBasisDims&, const double*, const double*, const double*, double*);
template void join_basis_backward(const JoinBasisDims&, const float*, Destination<float>, Destination<float>, Destination<float>);
template void join_basis_backward(const JoinBasisDims&, const double*, Destination<double>, Destination<double>, Destination<double>);

}  // namespace ermoe::cpu
