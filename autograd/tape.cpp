#include "autograd/tape.h"

#include "autograd/parameter.h"
#include "core/flat.h"

namespace ermoe {

Variable Tape::leaf(Tensor value) { return append(std::move(value), {}, nullptr); }

Variable Tape::append(Tensor y, std::span<const Variable* const> inputs, std::unique_ptr<Node> node) {
  Entry entry;
  entry.node = std::move(node);
  entry.first_input = edges_.size();
  entry.input_count = inputs.size();
  entry.shape = y.shape();
  entry.dtype = y.dtype();
  for (const Variable* input : inputs) edges_.push_back(input->edge);
  entries_.push_back(std::move(entry));
  return {std::move(y), Edge{.node = static_cast<int64_t>(entries_.size()) - 1}};
}

void Tape::backward(const ExecContext& ctx, const Variable& root, Tensor seed) {
  check(root.edge.node >= 0, "[backward] the root was not computed from anything that wants a gradient");
  if (!seed.defined()) {
    check(root.value.numel() == 1, "[backward] root {} is not a scalar and no seed was given", root.shape().str());
    seed = ctx.empty(root.shape(), root.dtype(), "gradient");
    fill(seed, 1);
  }
  check(seed.shape() == root.shape(), "[backward] seed {} for root {}", seed.shape().str(), root.shape().str());
  entries_[static_cast<size_t>(root.edge.node)].grad = std::move(seed);

  for (auto id = static_cast<size_t>(root.edge.node) + 1; id-- > 0;) {
    reach(id + 1);
    Entry& entry = entries_[id];
    if (!entry.node) continue;  // a leaf keeps its gradient
    const std::unique_ptr<Node> node = std::move(entry.node);
    const Tensor dy = std::move(entry.grad);
    entry.grad = {};
    if (!dy.defined()) continue;  // nothing that the root depends on
    GradWriter out(ctx, *this, std::span(edges_).subspan(entry.first_input, entry.input_count));
    const OpRange range(ctx.listener, node->name());
    node->backward(ctx, dy, out);
  }
  reach(0);
}

/// All entries from `entry` on have run.
void Tape::reach(size_t entry) {
  while (!marks_.empty() && marks_.back().entry >= entry) {
    const std::function<void()> fn = std::move(marks_.back().fn);
    marks_.pop_back();
    fn();
  }
}

Tensor Tape::grad(const Variable& leaf) const {
  check(leaf.edge.node >= 0, "[tape] the gradient of a constant");
  return entries_[static_cast<size_t>(leaf.edge.node)].grad;
}

void Tape::clear() {
  entries_.clear();
  edges_.clear();
  marks_.clear();
}

GradSlot GradWriter::into(size_t i) {
  const Edge& edge = inputs_[i];
  return slot(i, edge.node < 0 ? DType::f32 : tape_.entries_[static_cast<size_t>(edge.node)].dtype);
}

GradSlot GradWriter::into_master(size_t i) {
  const Edge& edge = inputs_[i];
  return slot(i, edge.node < 0 ? DType::f32 : master_of(tape_.entries_[static_cast<size_t>(edge.node)].dtype));
}

GradSlot GradWriter::slot(size_t i, DType dtype) {
  const Edge& edge = inputs_[i];
  if (edge.parameter != nullptr) {
    Parameter& p = *edge.parameter;
    const auto mode = p.has_grad ? Accumulate::add : Accumulate::overwrite;
    check(mode == Accumulate::overwrite || p.grad.dtype() != DType::bf16,
          "[grad_writer] {}: a second gradient for one in bf16, which is written once", p.name);
    p.has_grad = true;
    return {p.grad, mode};
  }
  check(edge.node >= 0, "[grad_writer] input {} wants no gradient", i);
  Tape::Entry& entry = tape_.entries_[static_cast<size_t>(edge.node)];
  if (!entry.grad.defined()) {
    entry.grad = ctx_.empty(entry.shape, dtype, "gradient");
    return {entry.grad, Accumulate::overwrite};
  }
  check(entry.grad.dtype() == dtype, "[grad_writer] gradients of {} and {} for one input", name_of(entry.grad.dtype()), name_of(dtype));
  // The first gradient may be a handle that someone else still reads (a residual gives the same dy to both sides).
  if (!entry.grad.unique()) entry.grad = entry.grad.clone("gradient");
  return {entry.grad, Accumulate::add};
}

void GradWriter::give(size_t i, const Tensor& grad) {
  const Edge& edge = inputs_[i];
  if (edge.node >= 0 && !tape_.entries_[static_cast<size_t>(edge.node)].grad.defined()) {
    Tape::Entry& entry = tape_.entries_[static_cast<size_t>(edge.node)];
    const bool fits = grad.dtype() == entry.dtype || grad.dtype() == master_of(entry.dtype);  // the latter of a view of a weight
    check(grad.numel() == entry.shape.numel() && fits, "[grad_writer] gradient {} for {}", grad.shape().str(), entry.shape.str());
    entry.grad = grad.reshape(entry.shape);
    return;
  }
  const GradSlot slot = into(i);
  const Tensor src = grad.reshape(slot.dst.shape());
  convert(src, slot.dst, slot.mode);
}

}  // namespace ermoe
