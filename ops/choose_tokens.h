// Which tokens each expert takes, from scores that somebody else computed: the other way round than ops/select_experts.h. Not on
// the tape: the choice has no gradient. Source: expert choice routing (Zhou et al., arXiv 2202.09368).
#pragma once

#include "core/context.h"
#include "ops/kernels/choose_tokens.h"

namespace ermoe {

/// taken (N, E) u8: 1 where the expert is among those that take the token. Tokens are cut into groups of dims.group, the last one with
/// what is left; of a group of n tokens each expert takes dims.taken_of(n), those with its largest scores, ties the lower token first.
/// `scores` (N, E) f32 or f64 as `dims` says; `allow` (N, E) u8, 0 forbids, undefined: everything is allowed. What is forbidden, a NaN or
/// an infinity is never taken: an expert takes fewer where too few are left.
Tensor choose_tokens(const ExecContext& ctx, const ChoiceDims& dims, const Tensor& scores, const Tensor& allow);

}  // namespace ermoe
