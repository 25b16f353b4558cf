// Contract of the kernels of the overlap of a token's experts' outputs. Read next: ops/cpu/output_overlap.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/token_weights.h"

#include <cstdint>

namespace ermoe {

struct OutputOverlapDims {
  int64_t tokens = 0;  // N
  int64_t slots = 0;   // K
  int64_t width = 0;   // D
};

/// 1 / (g + 1e-6): an output without a length is not divided by.
template <typename M>
ERMOE_HD M overlap_inverse(M g) {
  return 1 / (g + static_cast<M>(1e-6));
}

/// c_jk of the gradient dloss/dy_j = Σ_k c_jk y_k of a token's loss, from the products g (K, K) of its rows:
///   c_jk = 2 g_jk (1/(g_jj + eps) + 1/(g_kk + eps)) for j ≠ k,   c_jj = -2 Σ_{k≠j} g_jk² / (g_jj + eps)².
template <typename M>
ERMOE_HD M overlap_slope(int64_t slots, const M* g, int64_t j, int64_t k) {
  const M inverse = overlap_inverse(g[j * slots + j]);
  if (k != j) return 2 * g[j * slots + k] * (inverse + overlap_inverse(g[k * slots + k]));
  M squares = 0;
  for (int64_t other = 0; other < slots; ++other)
    if (other != j) squares += g[j * slots + other] * g[j * slots + other];
  return -2 * squares * inverse * inverse;
}

// `weights` (N) as ops/token_weights.h makes them, or null: all 1.

namespace cpu {

/// loss = 1/N Σ_n weight_n Σ_{j≠k} g_jk² / (g_kk + eps). Kept: g, the products of the rows of token n's slots, 0 where one is missing.
template <typename T>
void output_overlap_forward(const OutputOverlapDims& dims, const T* y /* (N*K, D) */, const int32_t* slot_row /* (N*K) */,
                            const Master<T>* weights, Master<T>* products /* (N, K, K) */, Master<T>* loss /* () */);
/// dy_row(n,j) (+)= dloss/N weight_n Σ_k c_njk y_row(n,k); rows without a slot (-1) count as zero.
template <typename T>
void output_overlap_backward(const OutputOverlapDims& dims, const T* y, const Master<T>* products, const int32_t* slot_row,
                             const int32_t* row_slot /* (N*K) */, const Master<T>* weights, const Master<T>* dloss, T* dy, Accumulate mode);

}  // namespace cpu

namespace cuda {

/// scratch: (N).
template <typename T>
void output_overlap_forward(const Stream& stream, const OutputOverlapDims& dims, const T* y, const int32_t* slot_row,
                            const Master<T>* weights, Master<T>* products, Master<T>* loss, double* scratch);
template <typename T>
void output_overlap_backward(const Stream& stream, const OutputOverlapDims& dims, const T* y, const Master<T>* products,
                             const int32_t* slot_row, const int32_t* row_slot, const Master<T>* weights, const Master<T>* dloss, T* dy,
                             Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
