// Matrices turned over.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y (…, N, M) of x (…, M, N): the last two axes exchanged. In a compute dtype.
Variable transpose(const ExecContext& ctx, const Variable& x);

}  // namespace ermoe
