// Cosine of the angle between two vectors, for many pairs at once. Read next: ops/context_cosine.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// s (…): <a, b> / (|a| |b|) over the last axis of a and b (…, R), equal shapes. A pair with a zero norm (its square below
/// the smallest normal number) gets s = 0 and no gradient.
Variable cosine(const ExecContext& ctx, const Variable& a, const Variable& b);

}  // namespace ermoe
