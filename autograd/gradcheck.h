// 6 of 6. Gradcheck: does the backward pass agree with the forward pass? Nudge an input, see how the output moves.
#pragma once

#include "autograd/tape.h"

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace ermoe {

using GradcheckFn = std::function<Variable(const ExecContext&, std::span<const Variable>)>;

struct GradcheckResult {
  double worst = 0;   // largest |numeric - analytic| over the largest gradient of the same input
  std::string where;  // "input 1 element 17: numeric 0.123, analytic 0.124"
};

/// Compares the tape's gradients of <fn(inputs), cotangent> with central differences, all in f64. The cotangent is
/// random (key `ctx.rng`). At most `probes` random elements of each input are nudged. `fn` must be deterministic.
GradcheckResult gradcheck(const ExecContext& ctx, const GradcheckFn& fn, std::span<const Tensor> inputs, int64_t probes = 200);

}  // namespace ermoe
