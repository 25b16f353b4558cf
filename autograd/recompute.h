// 5 of 6. Recompute: spend time to save memory. The forward pass keeps only the inputs of `fn`; the backward pass
// runs `fn` again on a tape of its own. Random numbers are keyed, not drawn from a state, so the second run draws
// the same ones. What must not be decided twice (a routing plan) `fn` keeps in a variable it captures.
#pragma once

#include "autograd/tape.h"

#include <functional>
#include <span>
#include <vector>

namespace ermoe {

using RecomputeFn = std::function<Variable(const ExecContext&, std::span<const Variable>)>;

/// fn(inputs). `fn` is called twice while training. Gradients equal those of calling `fn` directly, bit for bit where
/// nobody but `fn` uses the inputs (elsewhere the same terms may be added in another order).
Variable recompute(const ExecContext& ctx, RecomputeFn fn, std::vector<Variable> inputs);

}  // namespace ermoe
