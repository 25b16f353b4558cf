// A derived parameter is a tensor made from factors once an optimizer step (W = U diag(s) Vᵀ, the packed routing basis).
// The model's tape treats it as a parameter; its gradient, reduced over ranks once, then flows on to the factors.
#pragma once

#include "autograd/parameter.h"
#include "autograd/tape.h"
#include "core/flat.h"

#include <functional>

namespace ermoe {

class DerivedParameter {
 public:
  DerivedParameter() { parameter.role = Parameter::Role::derived; }

  Parameter parameter;

  /// Computes the value from its factors and remembers how. Call after every change of the factors.
  void refresh(const ExecContext& ctx, const std::function<Variable(const ExecContext&)>& make) {
    tape_.clear();
    spent_ = false;
    root_ = make(ctx.with_tape(&tape_));
    const Tensor own = place(ctx);
    if (own.defined() && root_.value.raw() != own.raw()) {
      convert(root_.value, own);
      root_.value = own;
    }
    parameter.value = parameter.compute = root_.value;
  }

  /// Where an op that can may make the value at once. What ops read is kept in memory of its own on a GPU, at one address for as
  /// long as the model lives, in the precision that they compute in; undefined on a CPU, where any memory will do.
  Tensor place(const ExecContext& ctx) {
    if (!ctx.device.is_cuda()) return {};
    if (!parameter.compute.defined() || parameter.compute.device() != ctx.device)
      parameter.compute = ctx.empty(parameter.shape, parameter.compute_dtype, "parameters");
    return parameter.compute;
  }

  /// Adds the gradient in `parameter.grad` to the factors' gradients. Once a refresh.
  void pull_back(const ExecContext& ctx) {
    if (parameter.shape.numel() == 0) return;  // other ranks have all of it: what lies here is from before it was shared out
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
