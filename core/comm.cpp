#include "core/comm.h"

#include <cstdlib>

namespace ermoe {

std::optional<Launch> find_launch() {
  // mpirun inside a Slurm job sets both its own and, through srun, Slurm's. Of Slurm's the one of the step counts: SLURM_NTASKS is
  // the allocation's, even for a program that srun did not start.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}) {
    const char* text = std::getenv(name);
    if (text == nullptr) continue;
    const bool of_allocation = std::string_view(name) == "SLURM_NTASKS";
    if (of_allocation && std::getenv("SLURM_STEP_ID") == nullptr) continue;
    return Launch{name, std::atoi(text)};
  }
  return std::nullopt;
}

void refuse_silent_multi_launch() {
  const std::optional<Launch> launch = find_launch();
  if (!launch || launch->processes <= 1) return;
#if defined(ERMOE_WITH_MPI)
  constexpr const char* fault = "this program works alone; start it once";
#else
  constexpr const char* fault = "this build has no MPI; start it once, or build with MPI";
#endif
  fail_input("{}={} says that this is one of several processes, but {}", launch->variable, launch->processes, fault);
}

}  // namespace ermoe
