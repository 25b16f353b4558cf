// A stopwatch that runs on the GPU. Read next: cuda/factory.h.
#pragma once

#include "cuda/factory.h"

namespace ermoe::cuda {

/// Between two events on `stream`.
std::unique_ptr<GpuTimer> make_timer(const Stream& stream);

}  // namespace ermoe::cuda
