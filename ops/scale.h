// Product with a constant.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = factor · x. f32 or f64.
Variable scale(const ExecContext& ctx, const Variable& x, double factor);

}  // namespace ermoe
