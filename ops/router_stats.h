// Running statistics of an ERMoE router: what centering, standardised selection and a quantile threshold read. Sums are
// collected over micro-batches (and ranks), and become part of the running values once an accepted step. No gradients.
#pragma once

#include "core/context.h"
#include "ops/kernels/router_stats.h"

namespace ermoe {

/// Running values of one router, in the dtype of its weights; all zero before the first update. Nobody asks on the host whether
/// there was one: means of zero center nothing, and the functions below know the rest from `updates`.
struct RouterStats {
  Tensor mean_x;      // (D) of the tokens
  Tensor mean_c;      // (D) of their contexts
  Tensor score_mean;  // (E) of each expert's score
  Tensor score_var;   // (E) population variance
  Tensor histogram;   // (bins) shares of the K best scores, uniform bins on [-1, 1]
  Tensor updates;     // (1) how often they were updated
};

/// Zeroed sums for `accumulate_router_stats`, f64.
Tensor make_router_sums(const ExecContext& ctx, const RouterStatsDims& dims);

/// Adds a micro-batch: x, c (N, D) (c may be undefined), scores (N, E), f32 where x is bf16, allow (N, E) u8 or undefined: masked pairs are
/// left out, and with `closed` leave_out tokens too whose pairs are all masked: a mask then has rows of ones or zeros alone.
void accumulate_router_stats(const ExecContext& ctx, const Tensor& x, const Tensor& c, const Tensor& scores, const Tensor& allow, int64_t K,
                             const Tensor& sums, ClosedTokens closed = ClosedTokens::count);

/// running = (1 - momentum) · running + momentum · batch; the first update replaces. An expert that saw no pair keeps
/// its values. `sums` is left as it is.
void update_router_stats(const ExecContext& ctx, const RouterStatsDims& dims, const Tensor& sums, double momentum,
                         const RouterStats& stats);

/// order (N, E) = (scores - mean) / sqrt(var + 1e-6): the calibrated scores that selection sorts by. Before the first update
/// the scores as they are.
Tensor calibrate_scores(const ExecContext& ctx, const Tensor& scores, const RouterStats& stats);

/// The value (1) below which a share `q` of the histogram lies, linear inside a bin; minus infinity where the
/// histogram is empty, so that every score is above it.
Tensor histogram_quantile(const ExecContext& ctx, const Tensor& histogram, double q);

}  // namespace ermoe
