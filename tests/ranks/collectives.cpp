#include "tests/ranks/collectives.h"

#include "tests/ranks/communicator_checks.h"

#if defined(ERMOE_WITH_MPI)
#include "core/comm_mpi.h"
#endif

namespace ermoe::testing {

int check_collectives(Ranks& ranks) {
  Communicator& world = ranks.world();
  ranks.watch().at(1, "checking");
  int failed = check_communicator(world, ranks_from(0, world.size(), 1), "world");
  {
    const auto part = world.split(world.rank() % 2);
    failed += check_communicator(*part, ranks_from(world.rank() % 2, world.size(), 2), "part");
    const auto alone = part->split(part->rank());
    failed += check_communicator(*alone, {world.rank()}, "alone");
  }
#if defined(ERMOE_WITH_MPI)
  if (world.size() > 1) {  // many pieces, that divide nothing
    RankWatch none;
    const auto pieces = MpiCommunicator::world(none, {.message = 4099, .reduction = 8191});
    failed += check_communicator(*pieces, ranks_from(0, world.size(), 1), "pieces");
  }
#endif
  return report(world, failed);
}

}  // namespace ermoe::testing
