// A learned factor for each channel of a residual branch (LayerScale: Touvron et al., arXiv 2103.17239).
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = x · gamma along the last axis: x (…, D), gamma (D). In a compute dtype.
Variable layer_scale(const ExecContext& ctx, const Variable& x, const Variable& gamma);

}  // namespace ermoe
