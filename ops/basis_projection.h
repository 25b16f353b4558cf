// Coordinates of tokens in every expert's routing basis, by one GEMM for all experts. Read next: ops/context_cosine.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// z (N, E, R): z[n,e] = basis[e] (x_n - mean). x (N, D), basis (E, R, D), mean (D), f32 where x is bf16, or undefined: a
/// constant, no gradient.
Variable basis_projection(const ExecContext& ctx, const Variable& x, const Variable& basis, const Tensor& mean);

}  // namespace ermoe
