// Contract of the LayerNorm kernels. Read next: ops/cpu/layer_norm.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/column_sum.h"
#include "ops/kernels/destination.h"

#include <cstdint>

namespace ermoe {

struct LayerNormDims {
  int64_t rows = 0, cols = 0;
  double eps = 0;

  RowChunks chunks() const { return {rows}; }
  /// Scratch of the backward pass: one row for dw and one for db a chunk; a GPU, whose blocks share rows out otherwise, needs no more.
  int64_t partials() const { return 2 * chunks().count() * cols; }
};

namespace cpu {

/// y = (x - mean) · rstd · w + b; mean and rstd are kept for the backward pass.
template <typename T>
void layer_norm_forward(const LayerNormDims& dims, const T* x /* (rows, cols) */, const T* w /* (cols) */, const T* b /* (cols) */, T* y,
                        Master<T>* mean /* (rows) */, Master<T>* rstd /* (rows) */);

/// The same of sum = x + branch, which is written too. y is made from the sum as it is stored: the bits are those of an addition
/// with a LayerNorm after it.
template <typename T>
void add_layer_norm_forward(const LayerNormDims& dims, const T* x, const T* branch /* (rows, cols) */, const T* w, const T* b,
                            T* sum /* (rows, cols) */, T* y, Master<T>* mean, Master<T>* rstd);

/// With x̂ = (x - mean) · rstd and g = dy · w: dx (+)= rstd (g - mean(g) - x̂ mean(g x̂)), dw (+)= Σ dy x̂, db (+)= Σ dy.
template <typename T>
void layer_norm_backward(const LayerNormDims& dims, const T* x, const T* w, const Master<T>* mean, const Master<T>* rstd, const T* dy,
                         Destination<T> dx, Destination<Master<T>> dw, Destination<Master<T>> db,
                         Master<T>* partials /* (2, chunks, cols) */);

}  // namespace cpu

namespace cuda {

/// The longest row that the kernels take.
inline constexpr int64_t layer_norm_columns = 4096;

template <typename T>
void layer_norm_forward(const Stream& stream, const LayerNormDims& dims, const T* x, const T* w, const T* b, T* y, Master<T>* mean,
                        Master<T>* rstd);
template <typename T>
void add_layer_norm_forward(const Stream& stream, const LayerNormDims& dims, const T* x, const T* branch, const T* w, const T* b, T* sum,
                            T* y, Master<T>* mean, Master<T>* rstd);
template <typename T>
void layer_norm_backward(const Stream& stream, const LayerNormDims& dims, const T* x, const T* w, const Master<T>* mean,
                         const Master<T>* rstd, const T* dy, Destination<T> dx, Destination<Master<T>> dw, Destination<Master<T>> db,
                         Master<T>* partials);

}  // namespace cuda
}  // namespace ermoe
