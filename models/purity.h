// Gradient purity: how far an added loss term pulls parameters where the task does. 1: the same way; 0: across; -1: against it. Measured
// on the parameters themselves: of eigen experts on the factors U, s, V and the biases, since those are what trains; with a leading basis
// V1's gradient has the router's part in it. Read first: models/added_losses.h, models/train_step.h.
#pragma once

#include "models/recorded_step.h"

#include <optional>
#include <string>
#include <vector>

namespace ermoe {

/// Two gradients of the same parameters.
struct Agreement {
  std::optional<double> cosine;      // none where either gradient is 0
  std::optional<double> norm_ratio;  // of the term's over the task's; none where the task's is 0, as before the first step of a new head
};

struct TermPurity {
  std::string term;  // "balance"; empty: all added terms together
  Agreement experts, router;
};

/// Runs `batch` forward and backward as a training step's first micro-batch would (ctx.rng the step's, `draws` micro-batches before it in
/// the training): for the task alone, for all added terms, and for each of several. Returns what all do together, then each; nothing where
/// the model has no such term. The gradient of Orthogonality::penalty is no term, and is taken off. One process alone; 2 to 2 + terms times
/// the work of a micro-batch. Parameters, buffers and what routers collected stay as they were; gradients are dropped.
std::vector<TermPurity> measure_purity(const ExecContext& ctx, Model& model, const MicroBatch& batch, const TargetLoss& loss,
                                       int64_t draws);

/// By name, for logs: purity_experts, purity_router, purity_ratio_experts, purity_ratio_router, where there are such; of a single term with
/// "/NAME" behind.
std::vector<std::pair<std::string, double>> purity_values(const std::vector<TermPurity>& terms);

}  // namespace ermoe
