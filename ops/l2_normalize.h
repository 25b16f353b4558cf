// Rows of unit length.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = x / max(‖x‖, eps) over the last axis; x (…, D), eps > 0. Rows shorter than eps are divided by eps. In a compute dtype.
Variable l2_normalize(const ExecContext& ctx, const Variable& x, double eps);

}  // namespace ermoe
