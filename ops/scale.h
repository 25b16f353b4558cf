// Product with a constant.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = factor · x. In a compute dtype.
Variable scale(const ExecContext& ctx, const Variable& x, double factor);

}  // namespace ermoe
