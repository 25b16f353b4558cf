// Contract of the LayerScale kernels. Read next: ops/cpu/layer_scale.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/column_sum.h"
#include "ops/kernels/destination.h"

#include <cstdint>

namespace ermoe {

struct LayerScaleDims {
  int64_t rows = 0, cols = 0;

  RowChunks chunks() const { return {rows}; }
  int64_t partials() const { return chunks().count() * cols; }
};

namespace cpu {

/// y = x · gamma.
template <typename T>
void layer_scale_forward(const LayerScaleDims& dims, const T* x /* (rows, cols) */, const T* gamma /* (cols) */, T* y);

/// dx (+)= dy · gamma, dgamma (+)= Σ_rows dy · x.
template <typename T>
void layer_scale_backward(const LayerScaleDims& dims, const T* x, const T* gamma, const T* dy, Destination<T> dx,
                          Destination<Master<T>> dgamma, Master<T>* partials /* (chunks, cols) */);

}  // namespace cpu

namespace cuda {

template <typename T>
void layer_scale_forward(const Stream& stream, const LayerScaleDims& dims, const T* x, const T* gamma, T* y);
template <typename T>
void layer_scale_backward(const Stream& stream, const LayerScaleDims& dims, const T* x, const T* gamma, const T* dy, Destination<T> dx,
                          Destination<Master<T>> dgamma, Master<T>* partials);

}  // namespace cuda
}  // namespace ermoe
