// Picks a token's numbers at its chosen experts: the combine weights of routers whose probabilities are used as they
// are. Read next: ops/combine_weights.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// w (N, K): p[n, ids[n,k]]; 0 where the id is -1 or from E on. p (N, E), ids (N, K) i32.
Variable gather_slots(const ExecContext& ctx, const Variable& p, const Tensor& ids);

}  // namespace ermoe
