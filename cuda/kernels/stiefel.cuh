// The parts of a step on the Stiefel manifold that orthogonal_step.cu puts together. All matrices are float, row-major and
// lie one after the other. Nothing here waits for the device. Read next: cuda/kernels/newton_schulz.cu.
#pragma once

#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/orthogonal_step.h"

#include <cstdint>

namespace ermoe::cuda {

/// Scratch of the Newton-Schulz iteration.
struct NewtonSchulzScratch {
  float* residual;     // (batch, n, n)
  float* rows;         // (batch, 3, n): norms of the residual's rows
  unsigned* arrivals;  // (batch)
};

/// q <- the nearest matrix with orthonormal columns, from `start`, which may be q itself; `spare` is a second buffer where it
/// is and unused otherwise. `twin`, null for none, becomes q rounded to bf16. At most `iterations` updates, more where the start is
/// far off; ends at the first NaN. Matrices whose flag in `done` (batch) is set stay as they are, their twins too; null: there are
/// none.
void newton_schulz(const Stream& stream, const StiefelDims& dims, int iterations, float* start, float* spare, float* q, bf16* twin,
                   const NewtonSchulzScratch& scratch, const unsigned* done = nullptr);

/// Scratch of the step on the tensor cores.
struct FastScratch {
  struct {
    bf16 *rounded, *lo, *product;  // (batch, m, n)
    bf16* half;                    // (batch, n, n)
    float* numbers;
    unsigned* flags;
  } parts;
  NewtonSchulzScratch newton_schulz;
};
/// Elements of its parts.
struct FastSizes {
  int64_t matrix, square, numbers, flags;
};
FastSizes fast_sizes(const StiefelDims& dims);

/// Whether the step on the tensor cores takes these sizes and addresses; null for what there is not.
bool fast_step_fits(const StiefelDims& dims, const float* q, const void* direction, const bf16* twin);

/// The whole of a step and of a retraction by Newton-Schulz: one update on the tensor cores, then `newton_schulz` for the
/// matrices that need more. `direction` (batch, m, n) is used up. `twin` is null or q rounded to bf16, a step's before it too.
/// `spare` (batch, m, n) and `square` (batch, n, n) are scratch; the direction may lie at spare's beginning.
void fast_step(const Stream& stream, const StiefelDims& dims, float lr, float* q, bf16* direction, bf16* twin, float* spare, float* square,
               const FastScratch& scratch);
void fast_retract(const Stream& stream, const StiefelDims& dims, float* q, bf16* twin, float* spare, const FastScratch& scratch);

/// Scratch of the factorisations.
struct FactorScratch {
  double* square;      // (batch, n, n)
  unsigned* arrivals;  // (batch)
};

/// q <- the Q of its QR factorisation with a positive diagonal of R.
void orthonormalize_columns(const Stream& stream, const StiefelDims& dims, float* q, const FactorScratch& scratch);

/// rows (batch, m, n) <- rows M⁻¹ for the matrices M = square, whose symmetric part must be positive definite.
void solve_rows(const Stream& stream, const StiefelDims& dims, float* rows, const FactorScratch& scratch);

/// worst (1), which holds a number >= 0, becomes the larger of itself and max |qᵀq - I| over the batch.
void largest_residual(const Stream& stream, const StiefelDims& dims, const float* q, double* worst);

}  // namespace ermoe::cuda
