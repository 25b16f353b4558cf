// Head-mean attention over given tokens: the routing context of the `attention_mean` setting. Read next: ops/attention.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y (B, T, D) = (mean over heads of softmax(q kᵀ / √Dh)) · tokens. qkv (B, T, 3D) as for `attention` (v is not used and gets
/// a zero gradient), tokens (B, T, D). No (T, T) matrix is kept. In a compute dtype.
Variable attention_mean(const ExecContext& ctx, const Variable& qkv, const Variable& tokens, int64_t heads);

}  // namespace ermoe
