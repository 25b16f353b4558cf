// Picks samples of a data set that lies in a device's memory: a batch of it without a copy from the host. Not
// differentiable. Read next: ops/augment.h, which takes the batch from there.
#pragma once

#include "core/context.h"

namespace ermoe {

/// Rows `indices` (B) i32 of `samples` (n, …) of any dtype: (B, …) of the same. A row of zeros where an index is outside
/// [0, n): indices may come from a device, where nobody looks at them. Throws `Error` on other shapes and dtypes.
Tensor gather_samples(const ExecContext& ctx, const Tensor& samples, const Tensor& indices);

}  // namespace ermoe
