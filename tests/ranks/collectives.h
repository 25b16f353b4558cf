// Every collective of a communicator against a plain computation on one rank. For programs that run as several ranks.
#pragma once

#include "core/ranks.h"

namespace ermoe::testing {

/// Runs all checks on the world and on its parts; prints what does not hold. Returns the exit code.
int check_collectives(Ranks& ranks);

}  // namespace ermoe::testing
