// Labels to target distributions (label smoothing: Szegedy et al., arXiv 1512.00567). Read next: ops/cross_entropy.h.
#pragma once

#include "core/context.h"

namespace ermoe {

/// (B, Y) = (1 - smoothing) one-hot + smoothing/Y for `labels` i32 (B) in [0, classes); smoothing in [0, 1]. f32 or f64.
Tensor soft_targets(const ExecContext& ctx, const Tensor& labels, int64_t classes, double smoothing, DType dtype = DType::f32);

}  // namespace ermoe
