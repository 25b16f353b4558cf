// Contract of the factored product. Read next: ops/cpu/materialize.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/destination.h"
#include "ops/kernels/trans.h"

#include <cstdint>

namespace ermoe {

/// One factor has a rows and the other b >= a. All that is done to columns is done to the small factor: scaling it costs
/// fewer bytes than scaling the large one or w, and the product is the same.
struct MaterializeDims {
  int64_t experts = 0;  // E
  int64_t small = 0;    // a
  int64_t large = 0;    // b
  int64_t rank = 0;     // r
  Trans w = Trans::no;  // as w lies: (E,a,b), or transposed (E,b,a)

  int64_t products() const { return experts * small * rank; }
  int64_t larges() const { return experts * large * rank; }
  int64_t weights() const { return experts * small * large; }
};

namespace cpu {

/// w = small diag(s) largeᵀ for every expert, or its transpose. `products` (E,a,r) is scratch.
template <typename T>
void materialize_forward(const MaterializeDims& dims, const Master<T>* small /* (E,a,r) */, const Master<T>* s /* (E,r) */,
                         const Master<T>* large /* (E,b,r) */, Master<T>* products, T* w);

/// With dw as (E,a,b) and p = dw large: dsmall (+)= p diag(s), ds_i (+)= small_iᵀ p_i over columns i, dlarge (+)= dwᵀ small diag(s).
template <typename T>
void materialize_backward(const MaterializeDims& dims, const Master<T>* small, const Master<T>* s, const Master<T>* large,
                          const Master<T>* dw, Master<T>* products, Destination<Master<T>> dsmall, Destination<Master<T>> ds,
                          Destination<Master<T>> dlarge);

}  // namespace cpu

namespace cuda {

// Factors are float on a GPU; T is what w is wanted in. With bf16 the operands of all products are rounded to it and the sums are
// float; w's gradient may be rounded already (G: T) or not (G: Master<T>), and large's may be wanted so (L: T, then overwriting alone)
// or not. `twin` (E,b,r) is large in T where there is such a copy, else null.

/// Elements of `narrowed`: bf16 copies of what the products read; none where T is float.
template <typename T>
int64_t materialize_forward_narrowed(const MaterializeDims& dims, const T* twin);
template <typename T, typename G>
int64_t materialize_backward_narrowed(const MaterializeDims& dims, const T* twin, const G* dw);

template <typename T>
void materialize_forward(const Stream& stream, const MaterializeDims& dims, const Master<T>* small, const Master<T>* s,
                         const Master<T>* large, const T* twin, Master<T>* products, T* narrowed, T* w);
template <typename T, typename G, typename L>
void materialize_backward(const Stream& stream, const MaterializeDims& dims, const Master<T>* small, const Master<T>* s,
                          const Master<T>* large, const T* twin, const G* dw, Master<T>* products, T* narrowed,
                          Destination<Master<T>> dsmall, Destination<Master<T>> ds, Destination<L> dlarge);

}  // namespace cuda
}  // namespace ermoe
