// The affine map on the GPU: one product in each direction, bound by arithmetic from widths of a few hundred on. cublasLt makes
// them, bias included; on Hopper our own kernels make those that something rides on: GELU, or the bias gradient beside the
// weight's, which otherwise costs another reading of dy. Contract: ops/kernels/linear.h.
#include "ops/kernels/linear.h"

#include "cuda/kernels/dense_wgmma.h"
#include "cuda/runtime/gemm.h"
#include "ops/kernels/column_sum.h"
#include "ops/kernels/gelu.h"

#include <algorithm>

namespace ermoe::cuda {

template <typename T>
void linear_forward(const Stream& stream, const LinearDims& dims, const T* x, const T* w, const T* b, T* y) {
  gemm(stream, packed_gemm(Trans::no, Trans::yes, dims.rows, dims.out, dims.in), 1, x, w, 0, y, b);
}

template <typename T>
void linear_backward_x(const Stream& stream, const LinearDims& dims, const T* dy, const T* w, T* dx, Accumulate mode) {
  gemm(stream, packed_gemm(Trans::no, Trans::no, dims.rows, dims.in, dims.out), 1, dy, w, mode == Accumulate::add ? 1 : 0, dx);
}

template <typename T>
void linear_backward_w(const Stream& stream, const LinearDims& dims, const T* dy, const T* x, Master<T>* dw, Accumulate mode) {
  gemm(stream, packed_gemm(Trans::yes, Trans::no, dims.out, dims.in, dims.rows), 1, dy, x, mode == Accumulate::add ? 1 : 0, dw);
}

template <typename T>
void linear_backward_parameters(const Stream& stream, const LinearDims& dims, const T* dy, const T* x, Destination<Master<T>> dw,
                                Destination<Master<T>> db, float* scratch) {
  if (dw.data != nullptr && db.data != nullptr && dense_wgmma_parameters(stream, dims, x, dy, dw, db, scratch)) return;
  if (dw.data != nullptr) linear_backward_w(stream, dims, dy, x, dw.data, dw.mode);
  if (db.data != nullptr) column_sum(stream, {dims.rows, dims.out, dims.out}, dy, scratch, db.data, db.mode);
}

int64_t linear_backward_scratch(const Stream& stream, const LinearDims& dims) {
  return std::max(ColumnSumDims{dims.rows, dims.out, dims.out}.partials(), dense_wgmma_scratch(stream, dims));
}

template <typename T>
void linear_gelu_forward(const Stream& stream, const LinearDims& dims, const T* x, const T* w, const T* b, T* pre, T* y) {
  if (dense_wgmma_gelu_forward(stream, dims, x, w, b, pre, y)) return;
  linear_forward(stream, dims, x, w, b, pre);
  gelu_forward(stream, {dims.rows * dims.out}, pre, y);
}

template <typename T>
bool linear_gelu_backward_x(const Stream& stream, const LinearDims& dims, const T* dy, const T* w, T* pre, T* y) {
  return dense_wgmma_gelu_backward(stream, dims, w, dy, pre, y);
}

template void linear_forward(const Stream&, const LinearDims&, const float*, const float*, const float*, float*);
template void linear_forward(const Stream&, const LinearDims&, const bf16*, const bf16*, const bf16*, bf16*);
template void linear_backward_x(const Stream&, const LinearDims&, const float*, const float*, float*, Accumulate);
template void linear_backward_x(const Stream&, const LinearDims&, const bf16*, const bf16*, bf16*, Accumulate);
template void linear_backward_w(const Stream&, const LinearDims&, const float*, const float*, float*, Accumulate);
template void linear_backward_w(const Stream&, const LinearDims&, const bf16*, const bf16*, float*, Accumulate);
template void linear_backward_parameters(const Stream&, const LinearDims&, const float*, const float*, Destination<float>,
                                         Destination<float>, float*);
template void linear_backward_parameters(const Stream&, const LinearDims&, const bf16*, const bf16*, Destination<float>, Destination<float>,
                                         float*);
template void linear_gelu_forward(const Stream&, const LinearDims&, const float*, const float*, const float*, float*, float*);
template void linear_gelu_forward(const Stream&, const LinearDims&, const bf16*, const bf16*, const bf16*, bf16*, bf16*);
template bool linear_gelu_backward_x(const Stream&, const LinearDims&, const float*, const float*, float*, float*);
template bool linear_gelu_backward_x(const Stream&, const LinearDims&, const bf16*, const bf16*, bf16*, bf16*);

}  // namespace ermoe::cuda
