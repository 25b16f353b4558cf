// Experts that are closed to a whole batch while training. Read next: models/moe.cpp.
#pragma once

#include "core/context.h"

namespace ermoe {

/// allow (N, E) u8 for N = `tokens` and E = `experts`: 0 at the experts that were drawn from `key`, elsewhere as `open` (N, E) u8 has it,
/// undefined: 1. The experts fall into `clusters` groups of neighbours of equal size, of each of which `dropped` are drawn, without
/// repetition; fewer than a group has. All tokens and all ranks meet the same experts. (Cluster-level expert dropout, MoEC: Xie et al.,
/// arXiv 2207.09094.)
Tensor drop_experts(const ExecContext& ctx, const Tensor& open, int64_t tokens, int64_t experts, int64_t clusters, int64_t dropped,
                    RngKey key);

}  // namespace ermoe
