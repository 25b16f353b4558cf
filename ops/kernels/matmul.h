// Contract of the batched matrix product; both of its gradients are the same kernel. Read next: ops/cpu/matmul.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"
#include "ops/kernels/trans.h"

#include <cstdint>

namespace ermoe {

struct MatmulDims {
  int64_t batch = 0;
  int64_t m = 0, n = 0, k = 0;  // op(a) is (m, k), op(b) is (k, n)
  Trans ta = Trans::no, tb = Trans::no;
};

namespace cpu {

/// c (batch, m, n) (+)= op(a) op(b), each stack contiguous.
template <typename T>
void matmul(const MatmulDims& dims, const T* a, const T* b, T* c, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void matmul(const Stream& stream, const MatmulDims& dims, const T* a, const T* b, T* c, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
