// Between precisions: f32 where numbers decide (losses, scores), bf16 where there are many of them.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// x in dtype `to`; x itself where it already is. f32 and f64, on a GPU f32 and bf16. The gradient has x's dtype.
Variable cast(const ExecContext& ctx, const Variable& x, DType to);

}  // namespace ermoe
