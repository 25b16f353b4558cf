// Contract of the cosine kernels. Read next: ops/cpu/cosine.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct CosineDims {
  int64_t pairs = 0;
  int64_t width = 0;  // R
};

namespace cpu {

/// s_i = <a_i, b_i> / (|a_i| |b_i|); 0 where a norm is zero.
template <typename T>
void cosine_forward(const CosineDims& dims, const T* a /* (pairs,R) */, const T* b /* (pairs,R) */, Master<T>* s /* (pairs) */);

/// da_i (+)= ds_i (b_i/|b_i| - s_i a_i/|a_i|) / |a_i|; for db, exchange a and b.
template <typename T>
void cosine_backward(const CosineDims& dims, const T* a, const T* b, const Master<T>* ds, T* da, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void cosine_forward(const Stream& stream, const CosineDims& dims, const T* a, const T* b, Master<T>* s);
template <typename T>
void cosine_backward(const Stream& stream, const CosineDims& dims, const T* a, const T* b, const Master<T>* ds, T* da, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
