// Loss terms that go beside any router, for ablations; ERMoE itself has none.
//   balance   α E Σ_e f_e P_e                            the Switch transformer's (arXiv 2101.03961)
//   z         mean_n logsumexp(logits_n)²                ST-MoE's (arXiv 2202.08906)
//   simbal    ‖RᵀR − I‖₁                                 SimBal (arXiv 2506.14038)
//   overlap   mean_n Σ_{j≠k} <y_nj, y_nk>² / <y_nk, y_nk>    the orthogonality loss, and
//   variance  −Σ_e 1/N Σ_n (p_ne − mean_e)²              the variance loss, of arXiv 2505.22323
// Where the sources are silent. R's columns are the experts: a row each of a router's weight, of learned_cosine's embeddings with unit
// length (then the diagonal is 1 and the term says how alike experts are). The norm is the sum of all E² absolute values; a sum of 0 has
// the gradient 0. The source's orthogonality loss is a sum of vectors, each the projection of one output on another; a number is made of
// each by multiplying it with what was projected, which is its squared length. Outputs are those of experts before weights; the sum over
// tokens is a mean here and the variance's 1/n is 1/N, so that weights mean the same for every batch. p: as in balance.
// Padding counts in none of them: means are over the tokens of `RouterInput` that are no padding.
#pragma once

#include "models/router.h"

namespace ermoe {

/// Appends to `routing.losses`, while training, those that are of the routing:
///   balance   weight moe.balance_weight for switch_lbl, moe.extra_balance for the others. f_e: share of the filled slots; P_e: mean of
///             p = `routing.probabilities`, or the softmax of `routing.logits` where a router has none of its own (for ermoe, whose
///             scores stand as logits: softmax(s), without a temperature).
///   z, simbal, variance  weights moe.z_weight, moe.simbal_weight (of `routing.matrix`), moe.variance_weight.
void add_losses(const ExecContext& ctx, const MoeConfig& moe, const RouterInput& in, Routing& routing);

/// The same of the experts' `outputs` (N*K, D), rows as `routing.plan` has them: overlap, weight moe.orthogonal_output_weight.
void add_output_losses(const ExecContext& ctx, const MoeConfig& moe, const RouterInput& in, const Variable& outputs, Routing& routing);

/// Scalar ‖R Rᵀ − I‖₁ of rows R (E, P): the sum over all entries. Exposed for its test.
Variable orthonormality_loss(const ExecContext& ctx, const Variable& rows);

}  // namespace ermoe
