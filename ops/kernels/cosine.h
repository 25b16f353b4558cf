// Contract of the cosine kernels. Read next: ops/cpu/cosine.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/destination.h"

#include <cstdint>

namespace ermoe {

struct CosineDims {
  int64_t pairs = 0;
  int64_t width = 0;   // R
  int64_t shifts = 1;  // S: rows of a shift
};

/// Vectors v, each with a constant added: pair i takes row i mod S of the shift. A null shift adds nothing.
template <typename T>
struct CosineOperand {
  const T* v = nullptr;              // (pairs, R)
  const Master<T>* shift = nullptr;  // (S, R)
};

namespace cpu {

/// s_i = <a_i, b_i> / (|a_i| |b_i|); 0 where a norm is zero.
template <typename T>
void cosine_forward(const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b, Master<T>* s /* (pairs) */);

/// da_i (+)= ds_i (b_i/|b_i| - s_i a_i/|a_i|) / |a_i|, and db likewise.
template <typename T>
void cosine_backward(const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b, const Master<T>* ds, Destination<T> da,
                     Destination<T> db);

}  // namespace cpu

namespace cuda {

template <typename T>
void cosine_forward(const Stream& stream, const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b, Master<T>* s);
template <typename T>
void cosine_backward(const Stream& stream, const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b,
                     const Master<T>* ds, Destination<T> da, Destination<T> db);

/// The same with both gradients stored, and their sums over all pairs of a shift's row, as rounded to T, which a product behind wants.
/// `scratch` has `cosine_sums_scratch` floats.
template <typename T>
void cosine_backward_sums(const Stream& stream, const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b,
                          const Master<T>* ds, T* da, T* db, Master<T>* sums_a /* (S, R) */, Master<T>* sums_b, float* scratch);
int64_t cosine_sums_scratch(const Stream& stream, const CosineDims& dims);

}  // namespace cuda
}  // namespace ermoe
