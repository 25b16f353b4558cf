// Keeps an expert's own columns orthogonal to its share of a basis that all experts have in common.
#pragma once

#include "core/context.h"
#include "ops/basis_part.h"

namespace ermoe {

/// rest (E, D, c) in place: rest_e -= B_e (B_eᵀ rest_e), B_e the e-th R columns of `basis` (D, E·R), which is orthonormal. With a
/// `part` the experts of `rest` are some of those of the basis.
void project_off_basis(const ExecContext& ctx, const Tensor& basis, const Tensor& rest, BasisPart part = {});

}  // namespace ermoe
