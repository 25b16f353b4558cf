// From what the model computes in to what scores and losses are kept in. Read next: ops/softmax.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// x in f32 where it is bf16, otherwise x itself.
Variable widen(const ExecContext& ctx, const Variable& x);

}  // namespace ermoe
