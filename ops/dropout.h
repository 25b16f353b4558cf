// Random omission while training: of elements (dropout: Srivastava et al., JMLR 15, 2014) or of a whole residual branch
// for a sample (stochastic depth: Huang et al., arXiv 1603.09382). Which ones depends on the key alone: no mask is kept.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// Each element is zero with probability p in [0, 1) and x / (1 - p) otherwise. x itself in eval mode or where p = 0. In a compute dtype.
Variable dropout(const ExecContext& ctx, const Variable& x, double p, RngKey key);

/// The same for each sample x[i] of x (B, …) as a whole.
Variable stochastic_depth(const ExecContext& ctx, const Variable& x, double p, RngKey key);

}  // namespace ermoe
