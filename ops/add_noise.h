// Noise on a router's logits while training. Read next: models/router_linear.cpp.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// x + ε, ε normal with standard deviation `deviation` >= 0; element i draws number i of `key`. x f32 or f64. The gradient
/// passes through.
Variable add_noise(const ExecContext& ctx, const Variable& x, double deviation, RngKey key);

}  // namespace ermoe
