// Where a kernel with several gradients writes one of them.
#pragma once

#include "autograd/grad_writer.h"

namespace ermoe {

/// Null data: this gradient is not wanted. Kernels write their destinations in the order of their parameters, since two
/// of them are the same memory where one variable was passed twice.
template <typename T>
struct Destination {
  T* data = nullptr;
  Accumulate mode = Accumulate::overwrite;
};

/// The destination of input i's gradient; null where nobody wants it.
template <typename T>
Destination<T> destination(GradWriter& out, size_t i) {
  if (!out.wants(i)) return {};
  const GradSlot slot = out.into(i);  // the tape keeps the memory
  return {slot.dst.data<T>(), slot.mode};
}

}  // namespace ermoe
