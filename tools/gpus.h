// What a program says about this machine's GPUs when it starts.
#pragma once

#include <string>

namespace ermoe {

/// "1 found (NVIDIA H100 80GB HBM3, 79.2 GiB, compute capability 9.0); this build computes on the CPU". Empty where there is
/// no GPU or the build did not find CUDA.
std::string describe_gpus();

}  // namespace ermoe
