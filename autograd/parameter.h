// 2 of 6. Parameters: named tensors that training changes. A model declares them (name, shape, flags); an arena then
// gives all of them their memory, values in one flat buffer and gradients in another, so that the gradient norm, the
// optimizer and the reduction over ranks each walk one array. Orthonormal factors are the exception: their gradients have
// memory only while a step needs them. Read next: autograd/tape.h.
#pragma once

#include "autograd/variable.h"
#include "core/tensor.h"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

struct Parameter {
  /// How a parameter gets its gradient and its update.
  enum class Role {
    direct,   // the tape writes its gradient, the optimizer changes it
    derived,  // made from factors once a step (W = U diag(s) Vᵀ); the tape writes its gradient, nobody steps it
    factor,   // its gradient is formed from that of a derived parameter, then the optimizer changes it
  };

  std::string name;  // "blocks.3.moe.experts.U1", given by Module::visit
  Shape shape;
  Role role = Role::direct;
  bool decay = false;           // weight decay applies (matrices, not biases or norms)
  bool orthonormal = false;     // its last two axes (m, n) hold n orthonormal columns: stepped on the Stiefel manifold
  bool expert_sharded = false;  // first axis is the expert
  bool frozen = false;          // takes no gradient and no step
  int64_t expert_offset = 0;
  int64_t experts_of_all = 0;        // of its first axis, where ranks hold parts of it; 0: this rank has all
  bool saves = true;                 // this rank writes it into checkpoints
  bool full_precision = false;       // ops read it as it is, also where they compute in bf16 (small ones that scale much)
  bool narrow_grad = false;          // one op writes its gradient once a step, and what reads it can bear it in bf16
  DType compute_dtype = DType::f32;  // of `compute`; the arena sets it
  float lr_scale = 1.0f;             // of the optimizer's rate

  Tensor value;           // window of the value arena
  Tensor compute;         // what ops read: `value` itself, or its bf16 copy
  Tensor twin;            // bf16 copy of an orthonormal factor where the model computes in bf16, otherwise undefined
  Tensor grad;            // window of the gradient arena, or of its group's gradients (FactorGroup)
  bool has_grad = false;  // the slot holds this step's sum; the next writer adds

  /// Of what all ranks hold of it together.
  Shape whole_shape() const { return experts_of_all > 0 ? shape.with(0, experts_of_all) : shape; }
};

/// How many gradients a step writes to a slot. `once`, one micro-batch on one rank: then nothing is added to what was rounded.
enum class GradWrites { many, once };

/// "U1" of "blocks.3.moe.experts.U1".
std::string_view last_part(std::string_view name);

/// Orthonormal factors of one shape that lie side by side, without padding between them. Their gradients are formed when a
/// step's activations are gone, so they take their memory then, in pieces about as large as activations: from an allocator
/// that keeps what is given back they get the very blocks in which activations lay.
struct FactorGroup {
  static constexpr int64_t most_elements = int64_t{1} << 26;  // but for a single factor that is larger

  std::vector<Parameter*> members;
  int64_t elements = 0;      // of all members
  DType dtype = DType::f32;  // of their gradients
  Tensor grad;               // (elements), of all members; undefined outside of what `take_factor_gradients` begins
};

/// The memory of a set of parameters. Slots are 64-byte aligned and lie in the order given, but for two things: roles are kept
/// together, direct first, then derived, then factors (the first two are what ranks reduce). Derived ones and factors of one name
/// in several layers lie side by side; and of the factors the orthonormal ones come first, those of one shape and precision of
/// gradients together.
class ParameterArena {
 public:
  /// Gives every parameter its value and gradient window and zeroes both; a derived parameter brings its own value, and an
  /// orthonormal factor gets no gradient yet. With `compute` bf16 ops read direct parameters through a copy and orthonormal
  /// factors have twins; `refresh_compute` makes both. Where gradients are written once, those of derived parameters and of
  /// orthonormal factors that may be are narrow, of `compute`.
  /// The parameters must outlive the arena.
  ParameterArena(CachingAllocator& allocator, DType dtype, std::vector<Parameter*> parameters);
  ParameterArena(CachingAllocator& allocator, DType dtype, DType compute, std::vector<Parameter*> parameters,
                 GradWrites writes = GradWrites::many, int64_t largest_group = FactorGroup::most_elements);

  std::span<Parameter* const> parameters() const { return parameters_; }
  /// All gradients of a role as one flat tensor, padding included (zero); without narrow ones and those of orthonormal factors.
  Tensor grads(Parameter::Role role) const { return grad_sections_[static_cast<size_t>(role)]; }
  /// All narrow gradients likewise; empty where there are none. They are no part of any sum, over ranks either.
  Tensor narrow_grads() const { return narrow_grads_; }
  GradWrites grad_writes() const { return grad_writes_; }
  /// All values of a role; undefined for derived ones.
  Tensor values(Parameter::Role role) const { return value_sections_[static_cast<size_t>(role)]; }
  /// All twins, which lie as the first values of the factors do; undefined where there are none.
  Tensor twins() const { return twins_; }
  DType dtype() const { return dtype_; }
  DType compute_dtype() const { return compute_.defined() ? compute_.dtype() : dtype_; }

  /// Brings the bf16 copies up to date, twins as well. Call after every change of the values, unless the optimizer did it.
  void refresh_compute();
  /// Starts a new gradient sum: the next write of each slot overwrites. Orthonormal factors have no gradient from here …
  void begin_gradients();
  /// … to here, where a step's activations are gone and its gradients are about to be led on to the factors.
  void take_factor_gradients(CachingAllocator& allocator);
  /// Every orthonormal factor that is not empty, in the order of values.
  std::span<const FactorGroup> factor_groups() const { return groups_; }
  /// What `take_factor_gradients` takes.
  size_t factor_gradient_bytes() const;
  /// Zeroes the slots of a role that nobody wrote, so that the whole section is valid.
  void end_gradients(Parameter::Role role);

 private:
  bool has_narrow_grad(const Parameter* p) const;
  bool has_grad_elsewhere(const Parameter* p) const;
  void make_groups(DType compute, int64_t most_elements);
  void make_narrow_grads(CachingAllocator& allocator, DType compute);

  DType dtype_;
  GradWrites grad_writes_;
  std::vector<Parameter*> parameters_;
  Tensor value_sections_[3];  // by Role
  Tensor grad_sections_[3];
  Tensor compute_, twins_, narrow_grads_;
  std::vector<FactorGroup> groups_;
};

}  // namespace ermoe
