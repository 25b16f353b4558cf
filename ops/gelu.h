// Gaussian error linear unit (Hendrycks & Gimpel, arXiv 1606.08415). The smallest op of the tree and the pattern for
// every other: docs/adding_an_op.md walks through it.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// Exact GELU, element-wise; y has the shape of x. In a compute dtype.
Variable gelu(const ExecContext& ctx, const Variable& x);

}  // namespace ermoe
