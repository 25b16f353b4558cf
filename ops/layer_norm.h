// Layer normalisation (Ba, Kiros & Hinton, arXiv 1607.06450).
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = (x - mean) / sqrt(var + eps) · w + b over the last axis, var the population variance. x (…, D), w (D), b (D); in a compute dtype.
Variable layer_norm(const ExecContext& ctx, const Variable& x, const Variable& w, const Variable& b, double eps);

}  // namespace ermoe
