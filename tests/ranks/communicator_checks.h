// Every collective of any communicator against a plain computation on one rank. For programs that run as several ranks.
#pragma once

#include "core/comm.h"

#include <string>
#include <vector>

namespace ermoe::testing {

/// The checks on one communicator, whose members are ranks `members` of the world: with tensors in `device`'s memory, where sums may be
/// made in any order, or on the host. Prints what does not hold under `name`. Returns how many did not.
int check_communicator(Communicator& comm, std::vector<int> members, const std::string& name, CachingAllocator* device = nullptr);

/// Ranks first, first + stride, … of `size`.
std::vector<int> ranks_from(int first, int size, int stride);

/// Sums over ranks, and prints the sum on rank 0. Returns the exit code.
int report(Communicator& world, int failed);

}  // namespace ermoe::testing
