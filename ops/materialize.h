// Builds an expert's matrix from its factors, once a step. Read next: ops/leading_basis.h, ops/orthogonal_step.h.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// bf16 copies of the factors, rounded to nearest, that live as long as these hold their values; undefined where there is none.
struct FactorTwins {
  Tensor u, v;
};

/// w (E, m, n): w_e = u_e diag(s_e) v_eᵀ. u (E, m, r), s (E, r), v (E, n, r). `into`: where w is made, else in memory of its own in
/// the factors' dtype. On a GPU the factors are f32 and w may be bf16: the products are bf16's too then, and w's gradient may be
/// f32 or bf16. They read the factor with more rows from its twin, where there is one, instead of rounding it each time.
Variable materialize(const ExecContext& ctx, const Variable& u, const Variable& s, const Variable& v, const Tensor& into = {},
                     const FactorTwins& twins = {});

}  // namespace ermoe
