// Contract of the copy of leading columns. Read next: ops/cpu/leading_basis.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct LeadingBasisDims {
  int64_t experts = 0;  // E
  int64_t width = 0;    // D
  int64_t columns = 0;  // r of v
  int64_t rank = 0;     // R <= r
};

namespace cpu {

/// basis_e = (first R columns of v_e)ᵀ.
template <typename T>
void leading_basis_forward(const LeadingBasisDims& dims, const Master<T>* v /* (E,D,r) */, T* basis /* (E,R,D) */);

/// dv_e (+)= dbasis_eᵀ in the first R columns, 0 in the others.
template <typename T>
void leading_basis_backward(const LeadingBasisDims& dims, const T* dbasis, Master<T>* dv, Accumulate mode);

}  // namespace cpu

namespace cuda {

// The factor v and its gradient are float on a GPU; T is what the basis is wanted in, and what its gradient comes in.

template <typename T>
void leading_basis_forward(const Stream& stream, const LeadingBasisDims& dims, const Master<T>* v, T* basis);
template <typename T>
void leading_basis_backward(const Stream& stream, const LeadingBasisDims& dims, const T* dbasis, Master<T>* dv, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
