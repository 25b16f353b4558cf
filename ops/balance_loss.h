// Losses that push a router towards equal loads, for the baselines and ablations: ERMoE itself uses none of them.
// Switch Transformer (Fedus et al., arXiv 2101.03961), z-loss (Zoph et al., arXiv 2202.08906), importance and load (Shazeer
// et al., arXiv 1701.06538, in the form of V-MoE, Riquelme et al., arXiv 2106.05974).
#pragma once

#include "autograd/tape.h"

namespace ermoe {

// `weights` (N), in the dtype of the rows: how much each row counts where some are padding, as ops/token_weights.h makes them, of as many
// groups; undefined: all alike. Every mean over rows is a weighted one; f_e counts what ids say.

/// Scalar E Σ_e f_e P_e. probabilities (N, E); ids i32 (N, K), -1 for a slot that nobody filled. f_e is the share of all
/// filled slots that went to e and is a constant, P_e the mean probability. 1 where both are even.
Variable switch_balance(const ExecContext& ctx, const Variable& probabilities, const Tensor& ids, const Tensor& weights = {});

/// Scalar mean over rows of logsumexp². logits (N, E).
Variable z_loss(const ExecContext& ctx, const Variable& logits, const Tensor& weights = {});

/// Scalar mean over groups of CV²(importance), importance_e = Σ of the probabilities (N, E) over the group's rows (of a weight above 0).
/// Groups are runs of N/groups rows. CV² = population variance / (mean² + 1e-10).
Variable importance_loss(const ExecContext& ctx, const Variable& probabilities, int64_t groups, const Tensor& weights = {});

/// Scalar mean over groups of CV²(load). load_e = mean over the group's rows of Φ((clean_e - t)/σ): the probability that under
/// fresh noise of standard deviation `sigma` > 0 expert e would reach t, the k-th largest noisy logit of the row (V-MoE, arXiv
/// 2106.05974, appendix A). The gradient goes to the clean logits alone; t is a constant.
Variable load_loss(const ExecContext& ctx, const Variable& clean, const Variable& noisy, int64_t k, double sigma, int64_t groups,
                   const Tensor& weights = {});

}  // namespace ermoe
