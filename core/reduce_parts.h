// The arithmetic of reductions between ranks: the parts are combined in their order, so the result is the same bits whoever computes it.
#pragma once

#include "core/comm.h"

#include <cstddef>
#include <span>

namespace ermoe {

/// out[i] = parts[0][i] + parts[1][i] + …, or their maximum, for `count` elements. bf16 is added up in float and rounded once;
/// integers wrap around; a NaN in any part is a NaN in the maximum. `out` may be one of the parts.
void reduce_parts(DType dtype, ReduceOp op, std::span<const std::byte* const> parts, std::byte* out, int64_t count);

}  // namespace ermoe
