// Layer normalisation (Ba, Kiros & Hinton, arXiv 1607.06450), alone and of the sum that a residual connection makes.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = (x - mean) / sqrt(var + eps) · w + b over the last axis, var the population variance. x (…, D), w (D), b (D); in a compute dtype.
Variable layer_norm(const ExecContext& ctx, const Variable& x, const Variable& w, const Variable& b, double eps);

/// A residual connection and what the next layer reads of it.
struct NormedSum {
  Variable sum;     // x + branch
  Variable normed;  // layer_norm(sum)
};

/// {add(x, branch), layer_norm(that)}, bit for bit, by one kernel: the sum is not read again. x and branch of one shape.
NormedSum add_layer_norm(const ExecContext& ctx, const Variable& x, const Variable& branch, const Variable& w, const Variable& b,
                         double eps);

}  // namespace ermoe
