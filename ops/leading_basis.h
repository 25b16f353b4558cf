// The routing basis that is tied to its expert: the first columns of V1. Read next: ops/basis_projection.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// basis (E, R, D): row i of basis_e is column i of v_e, i < R = `rank`. v (E, D, r), R <= r. The gradient reaches the
/// first R columns of v.
Variable leading_basis(const ExecContext& ctx, const Variable& v, int64_t rank);

}  // namespace ermoe
