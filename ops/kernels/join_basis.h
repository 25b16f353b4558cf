// Contract of the join_basis kernels. Read next: ops/cpu/join_basis.cpp.
#pragma once

#include "core/device.h"
#include "ops/kernels/destination.h"

#include <cstdint>

namespace ermoe {

struct JoinBasisDims {
  int64_t E = 0, Ef = 0, D = 0, R = 0, r = 0;
  int64_t first = 0, all = 0;  // expert e of the rest is expert first + e of the basis, which has so many
};

namespace cpu {

/// v (E+Ef, D, r) from basis (D, all*R), rest (E, D, r-R), free (Ef, D, r).
template <typename T>
void join_basis_forward(const JoinBasisDims& dims, const T* basis, const T* rest, const T* free, T* v);

/// The parts' gradients (+)= their places in dv. Columns of the basis that belong to nobody here are left alone.
template <typename T>
void join_basis_backward(const JoinBasisDims& dims, const T* dv, Destination<T> dbasis, Destination<T> drest, Destination<T> dfree);

}  // namespace cpu

namespace cuda {

// Factors are float on a GPU, whatever the model computes in.

template <typename T>
void join_basis_forward(const Stream& stream, const JoinBasisDims& dims, const T* basis, const T* rest, const T* free, T* v);
template <typename T>
void join_basis_backward(const Stream& stream, const JoinBasisDims& dims, const T* dv, Destination<T> dbasis, Destination<T> drest,
                         Destination<T> dfree);

}  // namespace cuda
}  // namespace ermoe
