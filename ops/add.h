// Sums of two tensors: of equal shape (residuals), along the batch (positions), along rows (biases).
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = a + b, equal shapes. In a compute dtype.
Variable add(const ExecContext& ctx, const Variable& a, const Variable& b);

/// Tells the tape that y is a + b, for ops whose kernels made the sum on the way.
Variable record_sum(const ExecContext& ctx, Tensor y, const Variable& a, const Variable& b);

/// y[i] = x[i] + p[0]: x (B, …), p (1, …).
Variable add_rows(const ExecContext& ctx, const Variable& x, const Variable& p);

/// x (…, D) + b (D).
Variable add_bias(const ExecContext& ctx, const Variable& x, const Variable& b);

}  // namespace ermoe
