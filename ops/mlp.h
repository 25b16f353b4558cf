// The dense feed-forward network as one node: two linear layers with a GELU between. It computes what `linear`, `gelu`,
// `linear` compute; on its way back one pass makes the GELU's gradient and the first bias's, in memory that is there already.
// Read next: ops/linear.h; ops/grouped_mlp.h is the same for experts.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// Both layers: w1 (F, I), b1 (F), w2 (O, F), b2 (O). Biases may be undefined.
struct MlpParameters {
  const Variable& w1;
  const Variable& b1;
  const Variable& w2;
  const Variable& b2;
};

/// y (…, O) = w2 gelu(w1 x + b1) + b2: x (…, I). In a compute dtype.
Variable mlp(const ExecContext& ctx, const Variable& x, const MlpParameters& p);

}  // namespace ermoe
