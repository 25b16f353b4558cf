// Where a kernel with several gradients writes one of them. Read next: ops/destination.h.
#pragma once

#include "core/accumulate.h"

namespace ermoe {

/// Null data: this gradient is not wanted. Kernels write their destinations in the order of their parameters, since two
/// of them are the same memory where one variable was passed twice.
template <typename T>
struct Destination {
  T* data = nullptr;
  Accumulate mode = Accumulate::overwrite;
};

}  // namespace ermoe
