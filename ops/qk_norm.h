// Normalised queries and keys, which bound the attention scores (Henry et al., arXiv 2010.04245; with LayerNorm as in
// Dehghani et al., arXiv 2302.05442). Read next: ops/attention.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// LayerNorm over Dh of every head of q (weights q_w, q_b) and of k (k_w, k_b), each weight (Dh) and shared by the heads; v
/// passes through. qkv (B, T, 3D), a row [q | k | v], each (H, Dh) -> (B, T, 3D). In a compute dtype.
Variable qk_norm(const ExecContext& ctx, const Variable& qkv, const Variable& q_w, const Variable& q_b, const Variable& k_w,
                 const Variable& k_b, int64_t heads, double eps);

}  // namespace ermoe
