// Contract of slice_rows's backward. Read next: ops/cpu/slice_rows.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct SliceRowsDims {
  int64_t begin = 0, count = 0, numel = 0;  // elements before the slice, in it, and in all of x
};

namespace cpu {

/// dx (numel) (+)= dy (count) at `begin`; zero elsewhere.
template <typename T>
void slice_rows_backward(const SliceRowsDims& dims, const T* dy, T* dx, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void slice_rows_backward(const Stream& stream, const SliceRowsDims& dims, const T* dy, T* dx, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
