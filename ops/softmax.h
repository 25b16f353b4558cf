// Softmax over rows.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = exp(x - max) / Σ exp(x - max) over the last axis; x (…, D), D >= 1. In a compute dtype.
Variable softmax(const ExecContext& ctx, const Variable& x);

}  // namespace ermoe
