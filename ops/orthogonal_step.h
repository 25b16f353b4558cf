// Steps and projections on the Stiefel manifold: matrices whose columns stay orthonormal while they are trained. Not on
// the tape: the optimizer calls these after the backward pass. docs: "Keeping U and V orthonormal".
// Read next: ops/kernels/orthogonal_step.h, whose StiefelMethod they take.
#pragma once

#include "core/context.h"
#include "ops/kernels/orthogonal_step.h"

namespace ermoe {

/// One descent step, in place: q <- retraction(q - lr · (a - q sym(qᵀa))), a = `direction`. q (…, m, n), m >= n, with
/// orthonormal columns; direction alike. Leaves max |qᵀq - I| <= 5e-6 in f32, <= 1e-11 in f64. A step so long that the
/// usual iteration would diverge is still retracted, with more iterations. A NaN in `direction` ends in q. `twin`, like q but
/// bf16, may be given where q is f32: it must hold q rounded to bf16, and does so afterwards too. A direction in bf16, which any
/// q takes, may be used up: it holds anything afterwards.
void stiefel_step(const ExecContext& ctx, const Tensor& q, const Tensor& direction, double lr, StiefelMethod method,
                  const Tensor& twin = {});

/// What `stiefel_step` best gets its direction in: bf16 where it then reads it as it is, else q's dtype. What rounding a direction
/// does is scaled by the rate; q leaves the manifold no further for it.
DType direction_dtype(const ExecContext& ctx, const Tensor& q, StiefelMethod method, const Tensor& twin);

/// Brings q (…, m, n) of full rank back to the manifold, in place, as the method would after a step; `cayley`, which has
/// no retraction, uses newton_schulz. `twin`, if given, becomes q rounded to bf16, whatever it held.
void retract(const ExecContext& ctx, const Tensor& q, StiefelMethod method, const Tensor& twin = {});

/// q <- q (qᵀq)^(-1/2), the nearest matrix with orthonormal columns, in place, from any matrix of full rank: averaged
/// factors, for example. Throws where q is too near to a lower rank to get there.
void polar_project(const ExecContext& ctx, const Tensor& q);

/// max |qᵀq - I| over the batch, accumulated in double. Waits for the device.
double orthogonality_residual(const ExecContext& ctx, const Tensor& q);

/// Adds the penalty λ Σ |qᵀq - I|² to `penalty` (1), f64, and its gradient to dq: dq += 4 λ q (qᵀq - I). Both must hold
/// numbers. Does not wait for the device.
void add_penalty_gradient(const ExecContext& ctx, const Tensor& q, double lambda, const Tensor& dq, const Tensor& penalty);

/// The same, and the penalty itself. Waits for the device.
double penalty_gradient(const ExecContext& ctx, const Tensor& q, double lambda, const Tensor& dq);

}  // namespace ermoe
