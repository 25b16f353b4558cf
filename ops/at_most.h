// An upper bound.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = min(x, bound), element-wise; the gradient of what reaches the bound is zero. A NaN stays one. In a compute dtype.
Variable at_most(const ExecContext& ctx, const Variable& x, double bound);

}  // namespace ermoe
