// Contract of the kernels of |z_e| / |x - mean|, z the token's coordinates in each basis. Read next:
// ops/cpu/subspace_cosine.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct SubspaceCosineDims {
  int64_t tokens = 0;   // N
  int64_t experts = 0;  // E
  int64_t rank = 0;     // R
  int64_t width = 0;    // D
};

namespace cpu {

/// s_ne = |z_ne| / |x_n - mean|; 0 where a norm is zero. mean may be null.
template <typename T>
void subspace_cosine_forward(const SubspaceCosineDims& dims, const T* x /* (N,D) */, const Master<T>* mean /* (D) */,
                             const T* z /* (N,E,R) */, Master<T>* s /* (N,E) */);

/// dz_ne (+)= ds_ne z_ne / (|z_ne| |x_n - mean|).
template <typename T>
void subspace_cosine_backward_z(const SubspaceCosineDims& dims, const T* x, const Master<T>* mean, const T* z, const Master<T>* ds, T* dz,
                                Accumulate mode);

/// dx_n (+)= -(Σ_e ds_ne s_ne) (x_n - mean) / |x_n - mean|².
template <typename T>
void subspace_cosine_backward_x(const SubspaceCosineDims& dims, const T* x, const Master<T>* mean, const Master<T>* s, const Master<T>* ds,
                                T* dx, Accumulate mode);

}  // namespace cpu

namespace cuda {

/// The same of z + shift, shift (E,R) or null.
template <typename T>
void subspace_cosine_forward(const Stream& stream, const SubspaceCosineDims& dims, const T* x, const Master<T>* mean, const T* z,
                             const Master<T>* shift, Master<T>* s);
template <typename T>
void subspace_cosine_backward_z(const Stream& stream, const SubspaceCosineDims& dims, const T* x, const Master<T>* mean, const T* z,
                                const Master<T>* shift, const Master<T>* ds, T* dz, Accumulate mode);
template <typename T>
void subspace_cosine_backward_x(const Stream& stream, const SubspaceCosineDims& dims, const T* x, const Master<T>* mean, const Master<T>* s,
                                const Master<T>* ds, T* dx, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
