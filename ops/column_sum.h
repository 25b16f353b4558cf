// Sum over rows, for the backward pass of ops that broadcast over rows. Not on the tape.
#pragma once

#include "autograd/grad_writer.h"
#include "ops/kernels/column_sum.h"

namespace ermoe {

/// slot.dst (dims.cols elements) (+)= Σ over dims.rows rows of x, which start dims.stride elements apart from element `first`
/// of x on. x in a compute dtype; slot.dst alike, but f32 for bf16 (GradWriter::into_master).
void column_sum(const ExecContext& ctx, const ColumnSumDims& dims, const Tensor& x, const GradSlot& slot, int64_t first = 0);

}  // namespace ermoe
