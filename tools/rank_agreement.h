// What several ranks must agree on before they train together, and what they share of a host.
#pragma once

#include "core/context.h"
#include "models/model.h"
#include "tools/run_config.h"

namespace ermoe {

/// Throws InputError where the loss or the routing of a whole batch is not put together from what ranks see of it.
void require_parts_of_batches(const RunConfig& config, int ranks);

/// Throws InputError with the rank that differs where ranks do not stand at the same step of the same data with the same weights: where a
/// host has another run folder, or another copy of the data.
void require_same_start(const ExecContext& ctx, Model& model, int64_t step, int64_t images);

/// How many ranks run on this rank's very cores, itself among them: 1 where a launcher gave each its own.
int ranks_on_same_cores(Communicator& ranks);

}  // namespace ermoe
