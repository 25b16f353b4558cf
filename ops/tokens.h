// Moving tokens about: prefix tokens (class, registers) in front of a sequence, one token or the mean out of it, other shapes.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// The same `prefix` (1, t, D) in front of every sequence of x (B, T, D): (B, t + T, D). In a compute dtype, like all here.
Variable concat_tokens(const ExecContext& ctx, const Variable& prefix, const Variable& x);

/// The tokens from `first_token` on: x (B, T, D) to (B, T - first_token, D). At least one must be left.
Variable skip_tokens(const ExecContext& ctx, const Variable& x, int64_t first_token);

/// Token t of every sequence: x (B, T, D) to (B, D).
Variable select_token(const ExecContext& ctx, const Variable& x, int64_t t);

/// Mean over the tokens from `first_token` on: x (B, T, D) to (B, D). At least one must be left.
Variable mean_pool(const ExecContext& ctx, const Variable& x, int64_t first_token);

/// The same elements under another shape; nothing is copied.
Variable reshape(const ExecContext& ctx, const Variable& x, const Shape& shape);

}  // namespace ermoe
