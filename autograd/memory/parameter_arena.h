// The memory of all parameters: values in flat sections and gradients in others, so that the gradient norm, the optimizer and ranks
// that add up each walk a few long arrays. Orthonormal factors are the exception: their gradients have memory only while a step needs
// them. Read first: autograd/parameter.h.
#pragma once

#include "autograd/parameter.h"

#include <span>
#include <vector>

namespace ermoe {

/// How many gradients a step writes to a slot. `once`, one micro-batch: then this rank adds nothing to what was rounded. Ranks that add
/// up theirs round each sum once more.
enum class GradWrites { many, once };

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
/// together, direct first, experts' last among them, then derived, then factors. Derived ones and factors of one name
/// in several layers lie side by side; and of the factors the orthonormal ones come first, those of one shape and precision of
/// gradients together.
class ParameterArena {
 public:
  /// Gives every parameter its value and gradient window and zeroes both; a derived parameter brings its own value, and an
  /// orthonormal factor gets no gradient yet. With `compute` bf16 ops read direct parameters through a copy and orthonormal
  /// factors have twins; `refresh_compute` makes both. Where gradients are written once, those of derived parameters and of
  /// orthonormal factors that may be are narrow, of `compute`.
  /// The parameters must outlive the arena. Direct sections are laid out so that `ranks` ranks can share equal parts of them.
  ParameterArena(CachingAllocator& allocator, DType dtype, std::vector<Parameter*> parameters);
  ParameterArena(CachingAllocator& allocator, DType dtype, DType compute, std::vector<Parameter*> parameters,
                 GradWrites writes = GradWrites::many, int64_t largest_group = FactorGroup::most_elements, int ranks = 1);

  std::span<Parameter* const> parameters() const { return parameters_; }
  /// All gradients of a role as one flat tensor, padding included (zero); without narrow ones and those of orthonormal factors.
  Tensor grads(Parameter::Role role) const { return grad_sections_[static_cast<size_t>(role)]; }
  /// All narrow gradients likewise; empty where there are none. Nothing is added to them on this rank.
  Tensor narrow_grads() const { return narrow_grads_; }
  GradWrites grad_writes() const { return grad_writes_; }
  /// All values of a role; undefined for derived ones.
  Tensor values(Parameter::Role role) const { return value_sections_[static_cast<size_t>(role)]; }
  /// All twins, which lie as the first values of the factors do; undefined where there are none.
  Tensor twins() const { return twins_; }
  /// Where p's value begins in the section of its role; a direct parameter's gradient begins at the same place.
  int64_t offset_of(const Parameter& p) const;
  /// Where the direct parameters of experts begin, a multiple of `direct_cut`: as is the sections' length.
  int64_t direct_split() const { return direct_split_; }
  /// Runs of so many elements, or multiples, fall into equal parts for all ranks.
  int64_t direct_cut() const { return direct_cut_; }
  DType dtype() const { return dtype_; }
  DType compute_dtype() const { return compute_.defined() ? compute_.dtype() : dtype_; }

  /// Brings the bf16 copies up to date, twins as well. Call after every change of the values, unless the optimizer did it.
  void refresh_compute();
  /// The copies of direct parameters alone.
  void refresh_direct();
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
  std::vector<int64_t> lay_out(Parameter::Role role);
  bool has_narrow_grad(const Parameter* p) const;
  bool has_grad_elsewhere(const Parameter* p) const;
  void make_groups(DType compute, int64_t most_elements);
  void make_narrow_grads(CachingAllocator& allocator, DType compute);

  DType dtype_;
  GradWrites grad_writes_;
  int64_t direct_split_ = 0, direct_cut_ = 1;
  std::vector<Parameter*> parameters_;
  Tensor value_sections_[3];  // by Role
  Tensor grad_sections_[3];
  Tensor compute_, twins_, narrow_grads_;
  std::vector<FactorGroup> groups_;
};

}  // namespace ermoe
