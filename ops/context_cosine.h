// The score of eigenbasis routing: does a token look, within an expert's subspace, the way its context does?
// Read next: ops/select_experts.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// s (N, E): cos(B_e (x_n - mean_x), B_e (c_n - mean_c)), B_e = basis[e]. x, c (N, D), basis (E, R, D), R < D: with R = D
/// and orthonormal rows every expert would score the same. The means (D) are constants and may be undefined. A zero norm
/// scores 0 and has no gradient. The same as `cosine` of two results of `basis_projection`, as one node: gradients of both
/// projections come out of one pass.
Variable context_cosine(const ExecContext& ctx, const Variable& x, const Variable& c, const Variable& basis, const Tensor& mean_x,
                        const Tensor& mean_c);

}  // namespace ermoe
