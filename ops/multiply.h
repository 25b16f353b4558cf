// Products of two tensors, element by element. Read next: models/cp_layer.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = a · b element by element, equal shapes. In a compute dtype.
Variable multiply(const ExecContext& ctx, const Variable& a, const Variable& b);

}  // namespace ermoe
