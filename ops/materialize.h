// Builds an expert's matrix from its factors, once a step. Read next: ops/leading_basis.h, ops/orthogonal_step.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// w (E, m, n): w_e = u_e diag(s_e) v_eᵀ. u (E, m, r), s (E, r), v (E, n, r).
Variable materialize(const ExecContext& ctx, const Variable& u, const Variable& s, const Variable& v);

}  // namespace ermoe
