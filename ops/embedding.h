// Rows of a table, chosen by index: words, positions, classes.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = table[ids]: table (V, D) in a compute dtype, ids (…) i32, y (…, D). On a CPU an id outside [0, V) is an error; on a GPU, where
/// looking would stall the stream, its row is filled with NaNs and it takes no gradient.
Variable embedding(const ExecContext& ctx, const Variable& table, const Tensor& ids);

}  // namespace ermoe
