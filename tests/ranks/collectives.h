// The collectives of ranks on CPUs, and of their GPUs, on all ranks and on parts of them.
#pragma once

#include "core/ranks.h"

namespace ermoe::testing {

/// Runs all checks on the world and on its parts; prints what does not hold. Returns the exit code.
int check_collectives(Ranks& ranks);

/// The same with a GPU for each rank, with collectives that are started together beside other work, and with recorded ones. Ends
/// with 77 where there are too few GPUs, or the build has none.
int check_gpu_collectives(Ranks& ranks);

}  // namespace ermoe::testing
