// Keeps a parameter within bounds, in place: after the step that may have moved it out.
#pragma once

#include "core/context.h"

namespace ermoe {

/// t = min(max(t, low), high), element-wise; a NaN stays one. Not differentiable; t in a compute dtype. Throws where high < low.
void clamp_values(const ExecContext& ctx, const Tensor& t, double low, double high);

}  // namespace ermoe
