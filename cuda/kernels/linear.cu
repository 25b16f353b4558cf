// The affine map on the GPU: one product by cublasLt in each direction, bound by arithmetic from widths of a few hundred on.
// The bias is added where the product leaves its registers; its gradient costs another reading of dy (cublasLt's epilogue for it
// measured slower than that). Contract: ops/kernels/linear.h.
#include "ops/kernels/linear.h"

#include "cuda/runtime/gemm.h"
#include "ops/kernels/column_sum.h"

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
  if (dw.data != nullptr) linear_backward_w(stream, dims, dy, x, dw.data, dw.mode);
  if (db.data != nullptr) column_sum(stream, {dims.rows, dims.out, dims.out}, dy, scratch, db.data, db.mode);
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

}  // namespace ermoe::cuda
