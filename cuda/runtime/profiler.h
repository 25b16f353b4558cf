// The breakdown of a step by what the GPU did, through CUPTI's activity records. Read next: cuda/factory.h, cuda/runtime/profiler.cpp.
#pragma once

#include "cuda/factory.h"

namespace ermoe::cuda {

/// Null with the reason where this build or this machine has no CUPTI, or where another tool holds it.
FoundProfiler find_profiler(const Stream& stream);

}  // namespace ermoe::cuda
