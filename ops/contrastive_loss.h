// Losses that draw an image and its text together and push all other pairs apart, over the pairs of all ranks. Radford et al., "Learning
// transferable visual models from natural language supervision", arXiv 2103.00020 (CLIP); Zhai et al., "Sigmoid loss for language image
// pre-training", arXiv 2303.15343 (SigLIP).
//
// How ranks share a loss L = mean over all B pairs. Each rank calls the op with its own b pairs and gets the part of L that is its own:
// the mean over them of what their rows cost. Parts weighed by the ranks' shares b / B of the batch (`ExecContext::part`) add up to L, as
// every other loss here does. On the way back each rank's seed is its share, too (models/train_step.h); then what an op gives to the own
// features is dL / dfeatures in full, with what they do to other ranks' rows, and its parts of the scale's gradient add up to dL / ds. So
// gradients that are added up over ranks (models/grad_sync.h) are those of one process with all pairs.
//
// Features of all ranks are gathered once, on the way forward; then each rank makes the logits of its own images against all texts and of
// its own texts against all images. The softmax of a rank's columns, which the gradient of its rows wants, is known from B log-sum-exps.
// That costs each rank one product more than making the logits once and adding up the gradients of all features over ranks would, and
// spares 2 B P numbers over the network on the way back, where nothing is sent now. Logits are made in tiles and made again on the way
// back: what is kept is the features of all ranks and the log-sum-exps.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// Scalar (CE(e^s I Tᵀ) + CE(e^s T Iᵀ)) / 2 over the pairs of all ranks, whose place in the batch is their class; of this rank's pairs, as
/// the head of this file says. image, text (b, P): features of length 1, pair by pair, of one compute dtype; log_scale (1) is s, f32 beside
/// bf16, as the loss and the logits are. Every rank of `ctx.comm` calls it together, with as many rows as `ctx.part` gives it (any number,
/// none too), or all with equally many where it says nothing. Without rows the loss is 0.
Variable contrastive_loss(const ExecContext& ctx, const Variable& image, const Variable& text, const Variable& log_scale);

/// Scalar mean over images of Σ over the texts of all ranks of -log σ(z (e^s cos + β)), z = 1 for an image's own text and -1 for others';
/// bias (1) is β. All else as above.
Variable sigmoid_pair_loss(const ExecContext& ctx, const Variable& image, const Variable& text, const Variable& log_scale,
                           const Variable& bias);

}  // namespace ermoe
