// Lets a layer add a term to the loss where it stands: the value passes through, and the backward pass starts the
// term's gradient here. So a block has one output, and recomputing it brings its loss term along.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y unchanged; while gradients flow back through it, d(total)/d(loss) = `weight`. `loss` is a scalar.
Variable attach_loss(const ExecContext& ctx, const Variable& y, const Variable& loss, double weight);

}  // namespace ermoe
