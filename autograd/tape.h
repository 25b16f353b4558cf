// 3 of 6. The tape: a list of what was computed, walked backwards to get gradients. An op that ran is appended after
// its inputs, so reverse order is a valid order: no sort, no recursion, and a chain of a million ops is safe.
// Read next: autograd/grad_writer.h, then tape.cpp.
#pragma once

#include "autograd/grad_writer.h"
#include "autograd/variable.h"
#include "core/context.h"

#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

namespace ermoe {

/// One computed op. Ops do not derive from it: they are plain structs (see `record`) that a node holds.
class Node {
 public:
  virtual ~Node() = default;
  virtual const char* name() const = 0;
  /// Hands the gradient of each input to `out`, given `dy`, the gradient of the output.
  virtual void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) = 0;
};

class Tape {
 public:
  /// A variable whose gradient can be asked for after `backward`.
  Variable leaf(Tensor value);

  /// Appends an op whose output is `y`. Prefer the free function `record`.
  Variable append(Tensor y, std::span<const Variable* const> inputs, std::unique_ptr<Node> node);

  /// Calls `fn` on the way back as soon as all that is appended after this has run: gradients of parameters that are used there alone
  /// are complete then.
  void when_reached(std::function<void()> fn) { marks_.push_back({entries_.size(), std::move(fn)}); }

  /// Walks from `root` to the start. `seed` is the gradient of `root` (default: 1 for a scalar). Each node is freed
  /// as soon as it has run, and its saved tensors with it. Parameters' gradients land in their arena.
  void backward(const ExecContext& ctx, const Variable& root, Tensor seed = {});

  /// The gradient of a leaf; undefined where nothing flowed into it.
  Tensor grad(const Variable& leaf) const;

  size_t size() const { return entries_.size(); }
  void clear();

 private:
  friend class GradWriter;

  struct Entry {
    std::unique_ptr<Node> node;  // null: a leaf, or already run
    size_t first_input = 0;      // its inputs' edges in edges_
    size_t input_count = 0;
    Shape shape;  // of the output
    DType dtype = DType::f32;
    Tensor grad;  // sum of what its users gave so far
  };

  std::vector<Entry> entries_;
  /// Between entries: before `entry`, in the order in which they are appended.
  struct Mark {
    size_t entry = 0;
    std::function<void()> fn;
  };
  void reach(size_t entry);

  std::vector<Edge> edges_;
  std::vector<Mark> marks_;
};

/// Tells the tape, if there is one and any input wants a gradient, how `y` was made. `Op` is a plain struct with
///   static constexpr const char* name;
///   void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const;
/// and the saved tensors as named members. `out`'s index i is the position in `inputs`.
template <typename Op>
Variable record(const ExecContext& ctx, Tensor y, std::initializer_list<const Variable*> inputs, Op op) {
  struct OpNode final : Node {
    explicit OpNode(Op&& o) : op(std::move(o)) {}
    const char* name() const override { return Op::name; }
    void backward(const ExecContext& c, const Tensor& dy, GradWriter& out) override { op.backward(c, dy, out); }
    Op op;
  };
  bool wanted = false;
  for (const Variable* input : inputs) wanted |= input->edge.wanted();
  if (ctx.tape == nullptr || !wanted) return Variable(std::move(y));
  return ctx.tape->append(std::move(y), std::span(inputs.begin(), inputs.size()), std::make_unique<OpNode>(std::move(op)));
}

}  // namespace ermoe
