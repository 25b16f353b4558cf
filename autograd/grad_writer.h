// 4 of 6. GradWriter: the one way in which a node hands a gradient to its inputs. A value used twice receives two
// gradients, and they must be added. The writer knows whether a gradient is the first (overwrite) or a later one
// (add), so kernels accumulate in place and nobody zeroes memory first. Read next: autograd/tape.cpp.
#pragma once

#include "autograd/variable.h"
#include "core/accumulate.h"
#include "core/context.h"

#include <span>

namespace ermoe {

class Tape;

/// A destination for a kernel: memory, and whether to add to what is there.
struct GradSlot {
  Tensor dst;
  Accumulate mode = Accumulate::overwrite;
};

class GradWriter {
 public:
  GradWriter(const ExecContext& ctx, Tape& tape, std::span<const Edge> inputs) : ctx_(ctx), tape_(tape), inputs_(inputs) {}

  /// False where input i is a constant: skip its gradient.
  bool wants(size_t i) const { return i < inputs_.size() && inputs_[i].wanted(); }

  /// Memory of input i's shape for a kernel to write its gradient into, exactly once per call.
  GradSlot into(size_t i);

  /// The same for a weight: its gradient is f32 where the weight is bf16, since an optimizer adds up many small ones.
  GradSlot into_master(size_t i);

  /// Hands over a finished gradient without copying where it is the first (pass-through ops: add, reshape).
  void give(size_t i, const Tensor& grad);

 private:
  GradSlot slot(size_t i, DType dtype);

  const ExecContext& ctx_;
  Tape& tape_;
  std::span<const Edge> inputs_;
};

}  // namespace ermoe
