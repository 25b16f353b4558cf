// Cosine of the angle between two vectors, for many pairs at once. Read next: ops/context_cosine.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// s (…): <a, b> / (|a| |b|) over the last axis of a and b (…, R), equal shapes. A pair with a zero norm (its square below
/// the smallest normal number) gets s = 0 and no gradient.
/// `shift_a` and `shift_b` (S, R) are constants that are added to a and b first, f32 where those are bf16: row i mod S to pair
/// i, so that S is the length of the axis before the last. Undefined: nothing is added.
Variable cosine(const ExecContext& ctx, const Variable& a, const Variable& b, const Tensor& shift_a = {}, const Tensor& shift_b = {});

}  // namespace ermoe
