// A derived parameter is a tensor made from factors once an optimizer step (W = U diag(s) Vᵀ, the packed routing basis).
// The model's tape treats it as a parameter; its gradient, reduced over ranks once, then flows on to the factors.
#pragma once

#include "autograd/parameter.h"
#include "autograd/tape.h"
#include "core/flat.h"

#include <functional>
#include <optional>

namespace ermoe {

class DerivedParameter {
 public:
  DerivedParameter() { parameter.role = Parameter::Role::derived; }

  Parameter parameter;

  /// Computes the value from its factors and remembers how. Call after every change of the factors. What ops read is kept in
  /// memory of its own on a GPU, at one address for as long as the model lives, in the precision that they compute in.
  void refresh(const ExecContext& ctx, const std::function<Variable(const ExecContext&)>& make) {
    tape_.clear();
    spent_ = false;
    root_ = make(ctx.with_tape(&tape_));
    if (!ctx.device.is_cuda()) {
      parameter.value = parameter.compute = root_.value;
      return;
    }
    if (!parameter.compute.defined() || parameter.compute.device() != ctx.device)
      parameter.compute = ctx.empty(root_.shape(), parameter.compute_dtype, "parameters");
    convert(root_.value, parameter.compute);
    parameter.value = root_.value = parameter.compute;
  }

  /// What the value is made in: the precision of its readers on a GPU, that of the factors on a CPU.
  std::optional<DType> dtype(const ExecContext& ctx) const {
    return ctx.device.is_cuda() ? std::optional(parameter.compute_dtype) : std::nullopt;
  }

  /// Adds the gradient in `parameter.grad` to the factors' gradients. Once a refresh.
  void pull_back(const ExecContext& ctx) {
    if (!parameter.has_grad || root_.edge.node < 0) return;
    check(!spent_, "[derived] {} was not refreshed since its gradient was pulled back", parameter.name);
    spent_ = true;
    tape_.backward(ctx, root_, parameter.grad);
  }

 private:
  Tape tape_;
  Variable root_;
  bool spent_ = false;  // the tape's nodes have run
};

}  // namespace ermoe
