// One token out of each sequence, another in each: the last word of a caption. Read next: ops/caption_ends.h; ops/tokens.h has
// the choice of the same token everywhere.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y (B, D) = x[b, index[b]]: x (B, T, D) in a compute dtype, index (B) i32. On a CPU an index outside [0, T) is an error; on a GPU,
/// where looking would stall the stream, its row is filled with NaNs and takes no gradient.
Variable select_tokens(const ExecContext& ctx, const Variable& x, const Tensor& index);

}  // namespace ermoe
