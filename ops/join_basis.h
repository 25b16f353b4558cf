// Puts the right factors of all experts together where their routing bases are one shared parameter.
#pragma once

#include "autograd/tape.h"
#include "ops/basis_part.h"

namespace ermoe {

/// V (E + Ef, D, r): expert e < E has columns [B_e | rest_e], B_e the columns e·R … (e+1)·R of `basis` (D, E·R) and rest
/// (E, D, r - R); free experts follow with `free` (Ef, D, r), which may be undefined. With a `part` the experts of `rest`, maybe none,
/// are some of those of the basis.
Variable join_basis(const ExecContext& ctx, const Variable& basis, const Variable& rest, const Variable& free, BasisPart part = {});

}  // namespace ermoe
