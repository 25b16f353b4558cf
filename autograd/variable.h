// 1 of 6. A Variable is a value plus the place where its gradient goes: a node of the tape, a parameter, or nowhere.
// Read next: autograd/parameter.h.
#pragma once

#include "core/tensor.h"

namespace ermoe {

struct Parameter;

/// Where a gradient goes. At most one of the two is set; with neither, the value is a constant.
struct Edge {
  int64_t node = -1;               // index on the tape
  Parameter* parameter = nullptr;  // its slot in the gradient arena

  bool wanted() const { return node >= 0 || parameter != nullptr; }
};

/// What ops take and return. Cheap to copy: a tensor handle and an edge.
struct Variable {
  Tensor value;
  Edge edge;

  Variable() = default;
  /// A constant. Explicit, so that losing a gradient is visible where it happens.
  explicit Variable(Tensor constant) : value(std::move(constant)) {}
  Variable(Tensor v, Edge e) : value(std::move(v)), edge(e) {}
  /// A parameter: its gradient lands in its arena slot. Frozen parameters are constants.
  Variable(Parameter& parameter);  // NOLINT: implicit on purpose, so that ops take weights as they are

  bool defined() const { return value.defined(); }
  const Shape& shape() const { return value.shape(); }
  DType dtype() const { return value.dtype(); }
  /// The same value without its history.
  Variable detached() const { return Variable(value); }
};

}  // namespace ermoe
