// How much each token counts in a mean over tokens of which some are padding. Not on the tape: a mask has no gradient. Read next:
// ops/balance_loss.h, ops/caption_ends.h.
#pragma once

#include "core/context.h"

namespace ermoe {

/// (N) in `dtype`, f32 or f64 (f32 on a GPU), of a mask `allow` (N, E) u8 whose rows are all 1 or, of padding, all 0: 0 for padding, and
/// for other tokens the rows of their group over those of it that are no padding, so that Σ weight x / rows is the mean of x over these.
/// Groups are runs of N/groups rows. `allow` is not looked at by the host.
Tensor token_weights(const ExecContext& ctx, const Tensor& allow, int64_t groups, DType dtype);

}  // namespace ermoe
