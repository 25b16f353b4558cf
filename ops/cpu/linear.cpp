// The affine map on the CPU, by BLAS. The bias goes into y before the product, which then adds to it: BLAS would clear y
// first in any case, so the bias costs nothing.
#include "ops/kernels/linear.h"

#include "ops/cpu/blas.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void linear_forward(const LinearDims& dims, const T* x, const T* w, const T* b, T* y) {
  const auto [rows, in, out] = dims;
  if (b != nullptr) {
#pragma omp parallel for schedule(static) if (dims.rows * dims.out > 16384)
    for (int64_t r = 0; r < dims.rows; ++r) std::copy(b, b + dims.out, y + r * dims.out);
  }
  gemm(Trans::no, Trans::yes, rows, out, in, T(1), x, in, w, in, b != nullptr ? T(1) : T(0), y, out);
}

template <typename T>
void linear_backward_x(const LinearDims& dims, const T* dy, const T* w, T* dx, Accumulate mode) {
  const auto [rows, in, out] = dims;
  gemm(Trans::no, Trans::no, rows, in, out, T(1), dy, out, w, in, mode == Accumulate::add ? T(1) : T(0), dx, in);
}

template <typename T>
void linear_backward_w(const LinearDims& dims, const T* dy, const T* x, T* dw, Accumulate mode) {
  const auto [rows, in, out] = dims;
  gemm(Trans::yes, Trans::no, out, in, rows, T(1), dy, out, x, in, mode == Accumulate::add ? T(1) : T(0), dw, in);
}

template void linear_forward(const LinearDims&, const float*, const float*, const float*, float*);
template void linear_forward(const LinearDims&, const double*, const double*, const double*, double*);
template void linear_backward_x(const LinearDims&, const float*, const float*, float*, Accumulate);
template void linear_backward_x(const LinearDims&, const double*, const double*, double*, Accumulate);
template void linear_backward_w(const LinearDims&, const float*, const float*, float*, Accumulate);
template void linear_backward_w(const LinearDims&, const double*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
