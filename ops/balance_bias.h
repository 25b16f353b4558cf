// Biases of experts that move against their loads (loss-free balancing: Wang et al., arXiv 2408.15664). Not on the tape.
#pragma once

#include "core/context.h"

namespace ermoe {

/// loads (E) f32 or f64 += counts (E) i32, those of a plan. Exact in f32 below 2^24.
void add_counts(const ExecContext& ctx, const Tensor& counts, const Tensor& loads);

/// bias_e += rate · sign(mean load - load_e); `loads` and `bias` (E) of one dtype, f32 or f64.
void move_biases(const ExecContext& ctx, const Tensor& loads, double rate, const Tensor& bias);

}  // namespace ermoe
