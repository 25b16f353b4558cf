// 2 of 6. Parameters: named tensors that training changes. A model declares them (name, shape, flags); an arena then gives all of
// them their memory (autograd/memory/parameter_arena.h). Read next: autograd/tape.h.
#pragma once

#include "autograd/variable.h"
#include "core/tensor.h"

#include <string>
#include <string_view>

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
  bool decay = false;                // weight decay applies (matrices, not biases or norms)
  bool orthonormal = false;          // its last two axes (m, n) hold n orthonormal columns: stepped on the Stiefel manifold
  bool expert_sharded = false;       // first axis is the expert
  bool frozen = false;               // takes no gradient and no step
  int64_t expert_offset = 0;         // of its first axis, where ranks hold parts of it
  int64_t experts_of_all = 0;        // and of how many; 0: this rank has all of it
  bool saves = true;                 // this rank writes it into checkpoints, where it has a part
  bool full_precision = false;       // ops read it as it is, also where they compute in bf16 (small ones that scale much)
  bool narrow_grad = false;          // one op writes its gradient once a step, and what reads it can bear it in bf16
  DType compute_dtype = DType::f32;  // of `compute`; the arena sets it
  float lr_scale = 1.0f;             // of the optimizer's rate
  int64_t depth = 0;                 // of the layer that uses it, counted from the input: deeper ones have their gradients earlier

  Tensor value;           // window of the value arena
  Tensor compute;         // what ops read: `value` itself, or its bf16 copy
  Tensor twin;            // bf16 copy of an orthonormal factor where the model computes in bf16, otherwise undefined
  Tensor grad;            // window of the gradient arena, or of its group's gradients (FactorGroup)
  bool has_grad = false;  // the slot holds this step's sum; the next writer adds

  /// Of all ranks' parts together.
  Shape whole_shape() const { return experts_of_all > 0 ? shape.with(0, experts_of_all) : shape; }
};

/// "U1" of "blocks.3.moe.experts.U1".
std::string_view last_part(std::string_view name);

}  // namespace ermoe
