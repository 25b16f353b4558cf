#include "autograd/memory/parameter_arena.h"

#include "core/flat.h"

#include <algorithm>
#include <tuple>

namespace ermoe {
namespace {

/// By role; of direct ones those of experts last. Among factors the orthonormal ones first, those of one shape and precision of gradients
/// together: they are stepped together. Then by the name within a layer: what layers have alike is made together.
bool before(const Parameter* a, const Parameter* b) {
  if (a->role != b->role) return a->role < b->role;
  if (a->role == Parameter::Role::direct) return a->expert_sharded < b->expert_sharded;
  if (a->role == Parameter::Role::factor && a->orthonormal != b->orthonormal) return a->orthonormal;
  const auto size = [](const Parameter* p) { return std::tuple(-p->shape.numel(), p->shape[-1], p->shape[-2], p->narrow_grad); };
  if (a->role == Parameter::Role::factor && a->orthonormal && size(a) != size(b)) return size(a) < size(b);
  return last_part(a->name) < last_part(b->name);
}

int64_t padded(const Parameter* p, DType dtype) {
  const auto alignment = static_cast<int64_t>(64 / size_of(dtype));
  return (p->shape.numel() + alignment - 1) / alignment * alignment;
}

bool in_a_group(const Parameter* p) { return p->role == Parameter::Role::factor && p->orthonormal && p->shape.numel() > 0; }

}  // namespace

ParameterArena::ParameterArena(CachingAllocator& allocator, DType dtype, std::vector<Parameter*> parameters)
    : ParameterArena(allocator, dtype, dtype, std::move(parameters)) {}

ParameterArena::ParameterArena(CachingAllocator& allocator, DType dtype, DType compute, std::vector<Parameter*> parameters,
                               GradWrites writes, int64_t largest_group, int ranks)
    : dtype_(dtype),
      grad_writes_(writes),
      direct_cut_(static_cast<int64_t>(64 / size_of(dtype)) * ranks),
      parameters_(std::move(parameters)) {
  std::ranges::stable_sort(parameters_, before);
  for (Parameter* p : parameters_) p->compute_dtype = p->role == Parameter::Role::factor || p->full_precision ? dtype : compute;
  for (auto role : {Parameter::Role::direct, Parameter::Role::derived, Parameter::Role::factor}) {
    const std::vector<int64_t> offsets = lay_out(role);  // and the end of all
    const int64_t total = offsets.back();
    int64_t orthonormal = 0, elsewhere = 0;  // orthonormal ones come first
    for (const Parameter* p : parameters_) {
      if (p->role != role) continue;
      if (p->orthonormal) orthonormal += padded(p, dtype);
      if (has_grad_elsewhere(p)) elsewhere += padded(p, dtype);
    }
    const auto section = static_cast<size_t>(role);
    const bool own_values = role != Parameter::Role::derived;
    if (own_values) value_sections_[section] = Tensor::zeros(allocator, {total}, dtype, "parameters");
    grad_sections_[section] = Tensor::zeros(allocator, {total - elsewhere}, dtype, "gradients");
    const bool copies = role == Parameter::Role::direct && compute != dtype;
    if (copies) compute_ = Tensor::zeros(allocator, {total}, compute, "parameters");
    const bool twins = role == Parameter::Role::factor && compute == DType::bf16 && dtype != compute && orthonormal > 0;
    if (twins) twins_ = Tensor::zeros(allocator, {orthonormal}, compute, "parameters");
    int64_t grad_offset = 0;
    for (size_t next = 0; Parameter * p : parameters_) {
      if (p->role != role) continue;
      const int64_t offset = offsets[next++];
      if (role == Parameter::Role::direct) grad_offset = offset;
      if (own_values) p->value = value_sections_[section].window(offset, p->shape);
      p->grad = has_grad_elsewhere(p) ? Tensor() : grad_sections_[section].window(grad_offset, p->shape);
      if (p->grad.defined()) grad_offset += padded(p, dtype);
      if (own_values) p->compute = p->compute_dtype != dtype ? compute_.window(offset, p->shape) : p->value;
      p->twin = twins && p->orthonormal ? twins_.window(offset, p->shape) : Tensor();
    }
  }
  make_groups(compute, largest_group);
  make_narrow_grads(allocator, compute);
}

/// Where each parameter of a role begins in its sections, and behind them their length.
std::vector<int64_t> ParameterArena::lay_out(Parameter::Role role) {
  const auto round_up = [&](int64_t n) { return (n + direct_cut_ - 1) / direct_cut_ * direct_cut_; };
  const bool direct = role == Parameter::Role::direct;
  std::vector<int64_t> offsets;
  int64_t end = 0;
  bool of_experts = false;
  for (const Parameter* p : parameters_) {
    if (p->role != role) continue;
    if (direct && p->expert_sharded && !of_experts) {
      of_experts = true;
      direct_split_ = end = round_up(end);
    }
    offsets.push_back(end);
    end += padded(p, dtype_);
  }
  if (direct) end = round_up(end);
  if (direct && !of_experts) direct_split_ = end;
  offsets.push_back(end);
  return offsets;
}

int64_t ParameterArena::offset_of(const Parameter& p) const {
  return (p.value.raw() - values(p.role).raw()) / static_cast<int64_t>(size_of(dtype_));
}

bool ParameterArena::has_narrow_grad(const Parameter* p) const {
  return grad_writes_ == GradWrites::once && p->role == Parameter::Role::derived && p->narrow_grad && p->compute_dtype != dtype_;
}

bool ParameterArena::has_grad_elsewhere(const Parameter* p) const { return in_a_group(p) || has_narrow_grad(p); }

void ParameterArena::make_narrow_grads(CachingAllocator& allocator, DType compute) {
  int64_t total = 0, offset = 0;
  for (const Parameter* p : parameters_)
    if (has_narrow_grad(p)) total += padded(p, compute);
  narrow_grads_ = Tensor::zeros(allocator, {total}, compute, "gradients");
  for (Parameter* p : parameters_) {
    if (!has_narrow_grad(p)) continue;
    p->grad = narrow_grads_.window(offset, p->shape);
    offset += padded(p, compute);
  }
}

void ParameterArena::make_groups(DType compute, int64_t most_elements) {
  for (Parameter* p : parameters_) {
    if (!in_a_group(p)) continue;
    const DType dtype = grad_writes_ == GradWrites::once && p->narrow_grad ? compute : dtype_;
    const Parameter* last = groups_.empty() ? nullptr : groups_.back().members.back();
    const bool joins = last != nullptr && last->shape[-2] == p->shape[-2] && last->shape[-1] == p->shape[-1] &&
                       padded(last, dtype_) == last->shape.numel() && groups_.back().dtype == dtype &&
                       groups_.back().elements + p->shape.numel() <= most_elements;
    if (!joins) groups_.push_back({.members = {}, .elements = 0, .dtype = dtype, .grad = {}});
    groups_.back().members.push_back(p);
    groups_.back().elements += p->shape.numel();
  }
}

void ParameterArena::refresh_compute() {
  refresh_direct();
  if (twins_.defined()) convert(values(Parameter::Role::factor).window(0, twins_.shape()), twins_);
}

void ParameterArena::refresh_direct() {
  if (compute_.defined()) convert(values(Parameter::Role::direct), compute_);
}

void ParameterArena::begin_gradients() {
  for (Parameter* p : parameters_) p->has_grad = false;
  for (FactorGroup& group : groups_) {
    group.grad = {};
    for (Parameter* p : group.members) p->grad = {};
  }
}

void ParameterArena::take_factor_gradients(CachingAllocator& allocator) {
  for (FactorGroup& group : groups_) {
    group.grad = Tensor::empty(allocator, {group.elements}, group.dtype, "gradients");
    int64_t offset = 0;
    for (Parameter* p : group.members) {
      p->grad = group.grad.window(offset, p->shape);
      offset += p->shape.numel();
    }
  }
}

size_t ParameterArena::factor_gradient_bytes() const {
  size_t bytes = 0;
  for (const FactorGroup& group : groups_) bytes += static_cast<size_t>(group.elements) * size_of(group.dtype);
  return bytes;
}

void ParameterArena::end_gradients(Parameter::Role role) {
  for (Parameter* p : parameters_) {
    if (p->has_grad || p->role != role) continue;
    zero(p->grad);
    p->has_grad = true;
  }
}

}  // namespace ermoe
