// Files that several ranks write and read together, in pieces. For programs that run as several ranks.
#pragma once

#include "core/ranks.h"

#include <string>

namespace ermoe::testing {

/// Runs all checks in `folder`, which all ranks share; prints what does not hold. Returns the exit code.
int check_slices(Ranks& ranks, const std::string& folder);

}  // namespace ermoe::testing
