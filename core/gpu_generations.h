// Which GPUs a build has code for. A generation is written as compilers do: "80" is compute capability 8.0, "90a" is the
// code of 9.0 that runs nowhere else. Read next: cuda/factory.h, which finds the GPUs.
#pragma once

#include <string_view>

namespace ermoe {

/// Whether `generations`, those of ERMOE_GPUS separated by commas, names `generation` itself.
bool names_generation(std::string_view generations, std::string_view generation);

/// Whether a build for `generations` runs on compute capability major.minor. Code of "80" runs on 8.x, x >= 0; a build that
/// names "80" also carries what any later GPU's driver translates for itself (cuda/CMakeLists.txt). "90a" runs on 9.0 alone,
/// "100f" on 10.x, x >= 0. What is no generation runs nowhere.
bool runs_on(std::string_view generations, int major, int minor);

}  // namespace ermoe
