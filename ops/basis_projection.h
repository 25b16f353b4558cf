// Coordinates of tokens in every expert's routing basis, by one GEMM for all experts. Read next: ops/context_cosine.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// Coordinates are z + shift; see `basis_projection`.
struct Projection {
  Variable z;    // (N, E, R)
  Tensor shift;  // (E, R), a constant, f32; undefined: nothing is left to add
};

/// z[n,e] + shift[e] = basis[e] (x_n - mean). x (N, D), basis (E, R, D), mean (D), f32 where x is bf16, or undefined: a
/// constant, no gradient. The shift is defined for bf16 with a mean alone: what z's precision cannot hold of the projected mean,
/// at most 1/512 of it.
Projection basis_projection(const ExecContext& ctx, const Variable& x, const Variable& basis, const Tensor& mean);

}  // namespace ermoe
