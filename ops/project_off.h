// Keeps an expert's own columns orthogonal to its share of a basis that all experts have in common.
#pragma once

#include "core/context.h"

namespace ermoe {

/// rest (E, D, c) in place: rest_e -= B_e (B_eᵀ rest_e), B_e the e-th R columns of `basis` (D, E·R), which is orthonormal.
void project_off_basis(const ExecContext& ctx, const Tensor& basis, const Tensor& rest);

}  // namespace ermoe
