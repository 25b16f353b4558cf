// The logistic function.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = 1 / (1 + exp(-x)), element-wise. In a compute dtype.
Variable sigmoid(const ExecContext& ctx, const Variable& x);

}  // namespace ermoe
