// Contract of the kernels that normalise queries and keys. Read next: ops/cpu/qk_norm.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/column_sum.h"
#include "ops/kernels/destination.h"

#include <cstdint>

namespace ermoe {

struct QkNormDims {
  int64_t rows = 0;      // N = B*T
  int64_t heads = 0;     // H
  int64_t head_dim = 0;  // Dh
  double eps = 0;

  int64_t width() const { return heads * head_dim; }  // D
  RowChunks chunks() const { return {rows}; }
  /// Scratch of the backward pass: a row for each of the four weights a chunk.
  int64_t partials() const { return 4 * chunks().count() * head_dim; }
};

/// The weights, each (Dh), shared by all heads.
template <typename T>
struct QkNormWeights {
  const T *q_w, *q_b, *k_w, *k_b;
};
template <typename T>
struct QkNormGradients {
  Destination<T> q_w, q_b, k_w, k_b;
};

namespace cpu {

/// y (N, 3D): each head of q and of k normalised as by LayerNorm, v copied.
template <typename T>
void qk_norm_forward(const QkNormDims& dims, const T* qkv /* (N, 3D) */, const QkNormWeights<T>& weights, T* y,
                     Master<T>* mean /* (N, 2H) */, Master<T>* rstd /* (N, 2H) */);

/// The gradients of LayerNorm (ops/kernels/layer_norm.h) for q and k; dv (+)= dy's v.
template <typename T>
void qk_norm_backward(const QkNormDims& dims, const T* qkv, const QkNormWeights<T>& weights, const Master<T>* mean, const Master<T>* rstd,
                      const T* dy, Destination<T> dqkv, const QkNormGradients<Master<T>>& gradients,
                      Master<T>* partials /* (4, chunks, Dh) */);

}  // namespace cpu

namespace cuda {

template <typename T>
void qk_norm_forward(const Stream& stream, const QkNormDims& dims, const T* qkv, const QkNormWeights<T>& weights, T* y, Master<T>* mean,
                     Master<T>* rstd);
template <typename T>
void qk_norm_backward(const Stream& stream, const QkNormDims& dims, const T* qkv, const QkNormWeights<T>& weights, const Master<T>* mean,
                      const Master<T>* rstd, const T* dy, Destination<T> dqkv, const QkNormGradients<Master<T>>& gradients,
                      Master<T>* partials);

}  // namespace cuda
}  // namespace ermoe
