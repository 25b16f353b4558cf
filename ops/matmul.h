// Products of stacks of matrices.
#pragma once

#include "autograd/tape.h"
#include "ops/kernels/trans.h"

namespace ermoe {

/// y = op(a) op(b), matrix by matrix over equal leading axes: op(a) (…, M, K), op(b) (…, K, N), y (…, M, N); op transposes
/// the last two axes where asked. In a compute dtype.
Variable matmul(const ExecContext& ctx, const Variable& a, const Variable& b, Trans ta = Trans::no, Trans tb = Trans::no);

}  // namespace ermoe
