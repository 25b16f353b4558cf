// The other score of eigenbasis routing: how much of a token lies in an expert's subspace. Read next:
// ops/select_experts.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// s (N, E): |B_e (x_n - mean)| / |x_n - mean|, B_e = basis[e]: with orthonormal rows, the cosine of the angle between the
/// token and the subspace. x (N, D), basis (E, R, D), mean (D) a constant or undefined. A zero norm scores 0 and has no
/// gradient.
Variable subspace_cosine(const ExecContext& ctx, const Variable& x, const Variable& basis, const Tensor& mean);

}  // namespace ermoe
