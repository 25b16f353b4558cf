#include "core/comm.h"

#include <cstdlib>
#include <string>

namespace ermoe {

void refuse_silent_multi_launch() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS"}) {
    const char* text = std::getenv(name);
    if (text == nullptr || std::atoi(text) <= 1) continue;
    // Inside a Slurm allocation SLURM_NTASKS is set even for a program that srun did not start.
    if (std::string(name) == "SLURM_NTASKS" && std::getenv("SLURM_STEP_ID") == nullptr) continue;
    fail_input("{}={} says that this is one of several processes, but this build has no MPI; start it once, or build with MPI", name, text);
  }
}

}  // namespace ermoe
