// From the tape's gradient slots to what a kernel with several gradients takes.
#pragma once

#include "autograd/grad_writer.h"
#include "ops/kernels/destination.h"

namespace ermoe {

/// The destination of input i's gradient; null where nobody wants it.
template <typename T>
Destination<T> destination(GradWriter& out, size_t i) {
  if (!out.wants(i)) return {};
  const GradSlot slot = out.into(i);  // the tape keeps the memory
  return {slot.dst.data<T>(), slot.mode};
}

/// The same for a weight, whose gradient is f32 where T is bf16.
template <typename T>
Destination<Master<T>> master_destination(GradWriter& out, size_t i) {
  if (!out.wants(i)) return {};
  const GradSlot slot = out.into_master(i);
  return {slot.dst.data<Master<T>>(), slot.mode};
}

}  // namespace ermoe
