// The affine map, one GEMM in each direction. Most of a transformer's time is spent here.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = x Wᵀ + b: x (…, I), w (O, I), b (O) or undefined for none; y (…, O). In a compute dtype.
Variable linear(const ExecContext& ctx, const Variable& x, const Variable& w, const Variable& b);

}  // namespace ermoe
