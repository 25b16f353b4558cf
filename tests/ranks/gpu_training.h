// See tests/ranks/gpu_training.cpp.
#pragma once

#include "core/ranks.h"

namespace ermoe::testing {

/// Prints a line a case. Returns 1 where any failed; 0 also where ranks have no GPU each, with a line that says so.
int train_on_gpus(Ranks& ranks);

}  // namespace ermoe::testing
