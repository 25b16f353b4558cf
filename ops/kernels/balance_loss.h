// Contract of the kernels of the losses that even out the experts' loads. Read next: ops/cpu/balance_loss.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"
#include "ops/kernels/token_weights.h"

#include <cstdint>

namespace ermoe {

struct BalanceDims {
  int64_t rows = 0;     // N
  int64_t experts = 0;  // E
  int64_t slots = 0;    // K
  int64_t groups = 1;   // G; group g holds rows [g N/G, (g + 1) N/G)
  double sigma = 0;     // standard deviation of the logits' noise

  ERMOE_HD int64_t group_rows() const { return rows / groups; }
};

// Everywhere `weights` (N) say how much each row counts, as ops/token_weights.h makes them; null: all alike.

namespace cpu {

/// loss = E Σ_e f_e P_e: f_e the share of the ids >= 0 that name e (kept), P_e the weighted mean of p over rows. Throws
/// on an id >= E.
template <typename T>
void switch_balance_forward(const BalanceDims& dims, const T* p /* (N, E) */, const int32_t* ids /* (N, K) */, const T* weights,
                            T* shares /* (E) */, T* loss /* () */);
/// dp (+)= dloss E f_e weight / N.
template <typename T>
void switch_balance_backward(const BalanceDims& dims, const T* shares, const T* weights, const T* dloss /* () */, T* dp, Accumulate mode);

/// loss = weighted mean over rows of lse², lse the log-sum-exp of the row (kept).
template <typename T>
void z_loss_forward(const BalanceDims& dims, const T* logits /* (N, E) */, const T* weights, T* lse /* (N) */, T* loss);
/// dlogits (+)= dloss 2 lse softmax weight / N.
template <typename T>
void z_loss_backward(const BalanceDims& dims, const T* logits, const T* weights, const T* lse, const T* dloss, T* dlogits, Accumulate mode);

/// loss = mean over groups of CV²(loads), loads_ge = Σ of p over the group's rows of a weight above 0 (kept). CV² = var / (mean² + 1e-10).
template <typename T>
void importance_loss_forward(const BalanceDims& dims, const T* p /* (N, E) */, const T* weights, double* loads /* (G, E) */, T* loss);
/// dp (+)= dloss/G dCV²/dload in these rows, else 0.
template <typename T>
void importance_loss_backward(const BalanceDims& dims, const double* loads, const T* weights, const T* dloss, T* dp, Accumulate mode);

/// The same with loads_ge = weighted mean over the group's rows of Φ((clean_e - t)/σ), t the K-th largest noisy logit of the row, kept
/// in `thresholds`.
template <typename T>
void load_loss_forward(const BalanceDims& dims, const T* clean /* (N, E) */, const T* noisy /* (N, E) */, const T* weights,
                       T* thresholds /* (N) */, double* loads /* (G, E) */, T* loss);
/// dclean (+)= dloss/G dCV²/dload φ(z) weight/(σ N/G).
template <typename T>
void load_loss_backward(const BalanceDims& dims, const T* clean, const T* weights, const T* thresholds, const double* loads, const T* dloss,
                        T* dclean, Accumulate mode);

}  // namespace cpu

namespace cuda {

/// Doubles of scratch memory for the forward kernels.
int64_t balance_scratch(const BalanceDims& dims);

// Probabilities, logits and losses are float on a GPU, whatever the rest of the model computes in.

/// An id >= E is not counted here; the CPU kernel throws.
template <typename T>
void switch_balance_forward(const Stream& stream, const BalanceDims& dims, const T* p, const int32_t* ids, const T* weights, T* shares,
                            T* loss, double* scratch);
template <typename T>
void switch_balance_backward(const Stream& stream, const BalanceDims& dims, const T* shares, const T* weights, const T* dloss, T* dp,
                             Accumulate mode);
template <typename T>
void z_loss_forward(const Stream& stream, const BalanceDims& dims, const T* logits, const T* weights, T* lse, T* loss, double* scratch);
template <typename T>
void z_loss_backward(const Stream& stream, const BalanceDims& dims, const T* logits, const T* weights, const T* lse, const T* dloss,
                     T* dlogits, Accumulate mode);
template <typename T>
void importance_loss_forward(const Stream& stream, const BalanceDims& dims, const T* p, const T* weights, double* loads, T* loss,
                             double* scratch);
template <typename T>
void importance_loss_backward(const Stream& stream, const BalanceDims& dims, const double* loads, const T* weights, const T* dloss, T* dp,
                              Accumulate mode);
template <typename T>
void load_loss_forward(const Stream& stream, const BalanceDims& dims, const T* clean, const T* noisy, const T* weights, T* thresholds,
                       double* loads, T* loss, double* scratch);
template <typename T>
void load_loss_backward(const Stream& stream, const BalanceDims& dims, const T* clean, const T* weights, const T* thresholds,
                        const double* loads, const T* dloss, T* dclean, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
