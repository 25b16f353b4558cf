// Contract of the factored product. Read next: ops/cpu/materialize.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/destination.h"

#include <cstdint>

namespace ermoe {

struct MaterializeDims {
  int64_t experts = 0;  // E
  int64_t rows = 0;     // m
  int64_t cols = 0;     // n
  int64_t rank = 0;     // r

  int64_t products() const { return experts * rows * rank; }
};

namespace cpu {

/// w = u diag(s) vᵀ for every expert. `products` (E,m,r) is scratch.
template <typename T>
void materialize_forward(const MaterializeDims& dims, const Master<T>* u /* (E,m,r) */, const Master<T>* s /* (E,r) */,
                         const Master<T>* v /* (E,n,r) */, Master<T>* products, T* w /* (E,m,n) */);

/// With p = dw v: du (+)= p diag(s), ds_i (+)= u_iᵀ p_i over columns i, dv (+)= dwᵀ u diag(s).
template <typename T>
void materialize_backward(const MaterializeDims& dims, const Master<T>* u, const Master<T>* s, const Master<T>* v, const Master<T>* dw,
                          Master<T>* products, Destination<Master<T>> du, Destination<Master<T>> ds, Destination<Master<T>> dv);

}  // namespace cpu

namespace cuda {

// Factors and their gradients are float on a GPU, and so is w's gradient; T is what w is wanted in. With bf16 the operands
// of all products are rounded to it and the sums are float.

/// Elements of `narrowed`: bf16 copies of what the products read; none where T is float.
template <typename T>
int64_t materialize_narrowed(const MaterializeDims& dims);

template <typename T>
void materialize_forward(const Stream& stream, const MaterializeDims& dims, const Master<T>* u, const Master<T>* s, const Master<T>* v,
                         Master<T>* products, T* narrowed, T* w);
template <typename T>
void materialize_backward(const Stream& stream, const MaterializeDims& dims, const Master<T>* u, const Master<T>* s, const Master<T>* v,
                          const Master<T>* dw, Master<T>* products, T* narrowed, Destination<Master<T>> du, Destination<Master<T>> ds,
                          Destination<Master<T>> dv);

}  // namespace cuda
}  // namespace ermoe
