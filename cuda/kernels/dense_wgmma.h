// Dense layers by the experts' kernels for Hopper, as one expert that has all rows: GELU, its derivative and the bias gradient
// ride on the products there, which the library's do not offer (its GELU is the tanh approximation, and its bias gradient costs
// more than another reading of dy). Each returns false, and does nothing, where it does not apply; the
// gradients of parameters also where they would not pay.
// Read next: cuda/kernels/grouped_linear.cuh, docs/performance.md.
#pragma once

#include "ops/kernels/linear.h"

namespace ermoe::cuda {

/// pre = x Wᵀ + b, y = gelu(pre).
template <typename T>
bool dense_wgmma_gelu_forward(const Stream& stream, const LinearDims& dims, const T* x, const T* w, const T* b, T* pre, T* y);

/// (dy W) gelu'(pre) where `pre` was, and y = gelu(pre); both (rows, in).
template <typename T>
bool dense_wgmma_gelu_backward(const Stream& stream, const LinearDims& dims, const T* w, const T* dy, T* pre, T* y);

/// dW (+)= dyᵀ x, db (+)= Σ_rows dy, with scratch of `dense_wgmma_scratch` floats.
template <typename T>
bool dense_wgmma_parameters(const Stream& stream, const LinearDims& dims, const T* x, const T* dy, Destination<Master<T>> dw,
                            Destination<Master<T>> db, float* scratch);
int64_t dense_wgmma_scratch(const Stream& stream, const LinearDims& dims);

}  // namespace ermoe::cuda
