// Multi-head self-attention (Vaswani et al., arXiv 1706.03762) without a (T, T) matrix in memory: scores live in a tile
// and are computed again in the backward pass (Dao et al., arXiv 2205.14135). Read next: ops/attention_mean.h.
#pragma once

#include "autograd/tape.h"
#include "ops/kernels/attention.h"

namespace ermoe {

/// y (B, T, D) = concat over heads of softmax(q kᵀ / √Dh) v. A row of `qkv` (B, T, 3D) is [q | k | v], each (H, Dh).
/// Saved for the gradient: qkv, y and the log-sum-exp of each row (B, H, T). In a compute dtype.
Variable attention(const ExecContext& ctx, const Variable& qkv, int64_t heads, AttentionMask mask = AttentionMask::none);

}  // namespace ermoe
