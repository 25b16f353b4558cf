// A part of the first axis, without a copy.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// Rows [begin, end) of x (n, …) as a view of the same memory. The gradient of the other rows is zero.
Variable slice_rows(const ExecContext& ctx, const Variable& x, int64_t begin, int64_t end);

}  // namespace ermoe
