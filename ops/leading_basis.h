// The routing basis that is tied to its expert: the first columns of V1. Read next: ops/basis_projection.h.
#pragma once

#include "autograd/tape.h"

#include <optional>

namespace ermoe {

/// basis (E, R, D): row i of basis_e is column i of v_e, i < R = `rank`. v (E, D, r), R <= r. The gradient reaches the
/// first R columns of v. `dtype`: of the basis, v's own if not given; on a GPU v is f32 and the basis may be bf16.
Variable leading_basis(const ExecContext& ctx, const Variable& v, int64_t rank, std::optional<DType> dtype = {});

}  // namespace ermoe
