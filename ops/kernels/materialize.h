// Contract of the factored product. Read next: ops/cpu/materialize.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct MaterializeDims {
  int64_t experts = 0;  // E
  int64_t rows = 0;     // m
  int64_t cols = 0;     // n
  int64_t rank = 0;     // r
};

namespace cpu {

/// w = u diag(s) vᵀ for every expert. `scratch` (E, m, r).
template <typename T>
void materialize_forward(const MaterializeDims& dims, const T* u /* (E,m,r) */, const T* s /* (E,r) */, const T* v /* (E,n,r) */,
                         T* scratch, T* w /* (E,m,n) */);

/// p = dw v: what the gradients of u and s share.
template <typename T>
void materialize_backward_product(const MaterializeDims& dims, const T* v, const T* dw, T* p /* (E,m,r) */);

/// du (+)= p diag(s).
template <typename T>
void materialize_backward_u(const MaterializeDims& dims, const T* s, const T* p, T* du, Accumulate mode);

/// ds_i (+)= u_iᵀ p_i, over columns i.
template <typename T>
void materialize_backward_s(const MaterializeDims& dims, const T* u, const T* p, T* ds, Accumulate mode);

/// dv (+)= dwᵀ u diag(s). `scratch` (E, m, r).
template <typename T>
void materialize_backward_v(const MaterializeDims& dims, const T* u, const T* s, const T* dw, T* scratch, T* dv, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void materialize_forward(const Stream& stream, const MaterializeDims& dims, const T* u, const T* s, const T* v, T* scratch, T* w);
template <typename T>
void materialize_backward_product(const Stream& stream, const MaterializeDims& dims, const T* v, const T* dw, T* p);
template <typename T>
void materialize_backward_u(const Stream& stream, const MaterializeDims& dims, const T* s, const T* p, T* du, Accumulate mode);
template <typename T>
void materialize_backward_s(const Stream& stream, const MaterializeDims& dims, const T* u, const T* p, T* ds, Accumulate mode);
template <typename T>
void materialize_backward_v(const Stream& stream, const MaterializeDims& dims, const T* u, const T* s, const T* dw, T* scratch, T* dv,
                            Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
