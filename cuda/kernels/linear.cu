// The affine map on the GPU: one product by cublasLt in each direction, bound by arithmetic from widths of a few hundred on.
// The bias is added where the product leaves its registers. Contract: ops/kernels/linear.h.
#include "ops/kernels/linear.h"

#include "cuda/runtime/gemm.h"

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

template void linear_forward(const Stream&, const LinearDims&, const float*, const float*, const float*, float*);
template void linear_forward(const Stream&, const LinearDims&, const bf16*, const bf16*, const bf16*, bf16*);
template void linear_backward_x(const Stream&, const LinearDims&, const float*, const float*, float*, Accumulate);
template void linear_backward_x(const Stream&, const LinearDims&, const bf16*, const bf16*, bf16*, Accumulate);
template void linear_backward_w(const Stream&, const LinearDims&, const float*, const float*, float*, Accumulate);
template void linear_backward_w(const Stream&, const LinearDims&, const bf16*, const bf16*, float*, Accumulate);

}  // namespace ermoe::cuda
