// Coordinates of tokens in every expert's routing basis, by one GEMM for all experts. Read next: ops/context_cosine.h.
#pragma once

#include "autograd/tape.h"
#include "ops/kernels/linear.h"

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

/// The products behind it, for ops that need them without a node between. A CPU centres the rows before a product; a GPU makes the
/// projected mean a bias of it.
struct BasisProducts {
  LinearDims dims;
  Tensor x;      // (N, D)
  Tensor basis;  // (E, R, D)
  Tensor mean;   // (D), f32 where x is bf16; or undefined

  /// Checks the shapes; `op` is what errors name.
  static BasisProducts of(const char* op, const Tensor& x, const Tensor& basis, const Tensor& mean);

  /// (N, E, R).
  Shape coordinates() const { return {dims.rows, basis.shape()[0], basis.shape()[1]}; }
  /// Writes z and returns the shift, (E, R) or undefined: what z's precision could not hold of the projected mean.
  Tensor forward(const ExecContext& ctx, const Tensor& z) const;
  /// dx (+)= dz B.
  void input_gradient(const ExecContext& ctx, const Tensor& dz, const Tensor& dx, Accumulate mode) const;
  /// dB (+)= dzᵀ (x - mean), on a GPU as dzᵀ x - (Σ_n dz_n) meanᵀ; `sums` (E, R) are that sum, made here where undefined.
  void basis_gradient(const ExecContext& ctx, const Tensor& dz, const Tensor& sums, const Tensor& db, Accumulate mode) const;
};

}  // namespace ermoe
