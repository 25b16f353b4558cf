#include "autograd/recompute.h"

namespace ermoe {
namespace {

class RecomputeNode final : public Node {
 public:
  RecomputeNode(RecomputeFn fn, std::vector<Variable> inputs, RngKey rng, Mode mode)
      : fn_(std::move(fn)), inputs_(std::move(inputs)), rng_(rng), mode_(mode) {}
  const char* name() const override { return "recompute"; }

  void backward(const ExecContext& outer, const Tensor& dy, GradWriter& out) override {
    Tape tape;
    ExecContext ctx = outer.with_tape(&tape).with_rng(rng_);
    ctx.mode = mode_;
    std::vector<Variable> leaves;
    for (const Variable& input : inputs_) leaves.push_back(input.edge.wanted() ? tape.leaf(input.value) : input.detached());
    const Variable y = fn_(ctx, leaves);
    if (y.edge.node < 0) return;
    tape.backward(ctx, y, dy);
    for (size_t i = 0; i < leaves.size(); ++i) {
      if (leaves[i].edge.node < 0) continue;
      if (const Tensor grad = tape.grad(leaves[i]); grad.defined()) out.give(i, grad);
    }
  }

 private:
  RecomputeFn fn_;
  std::vector<Variable> inputs_;
  RngKey rng_;
  Mode mode_;
};

}  // namespace

Variable recompute(const ExecContext& ctx, RecomputeFn fn, std::vector<Variable> inputs) {
  std::vector<Variable> constants;
  for (const Variable& input : inputs) constants.push_back(input.detached());
  Variable y = fn(ctx.with_tape(nullptr), constants);
  if (ctx.tape == nullptr) return y;
  std::vector<const Variable*> edges;
  for (const Variable& input : inputs) edges.push_back(&input);
  auto node = std::make_unique<RecomputeNode>(std::move(fn), inputs, ctx.rng, ctx.mode);
  return ctx.tape->append(std::move(y.value), edges, std::move(node));
}

}  // namespace ermoe
