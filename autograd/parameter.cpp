#include "autograd/parameter.h"

#include <algorithm>
#include <cstring>

namespace ermoe {

Variable::Variable(Parameter& p) : value(p.value) {
  if (!p.frozen) edge.parameter = &p;
}

ParameterArena::ParameterArena(CachingAllocator& allocator, DType dtype, std::vector<Parameter*> parameters)
    : dtype_(dtype), parameters_(std::move(parameters)) {
  std::ranges::stable_sort(parameters_, {}, [](const Parameter* p) { return p->role; });
  const auto alignment = static_cast<int64_t>(64 / size_of(dtype));
  const auto padded = [&](const Parameter* p) { return (p->shape.numel() + alignment - 1) / alignment * alignment; };
  for (auto role : {Parameter::Role::direct, Parameter::Role::derived, Parameter::Role::factor}) {
    int64_t total = 0;
    for (const Parameter* p : parameters_)
      if (p->role == role) total += padded(p);
    const auto section = static_cast<size_t>(role);
    const bool own_values = role != Parameter::Role::derived;
    if (own_values) value_sections_[section] = Tensor::zeros(allocator, {total}, dtype, "parameters");
    grad_sections_[section] = Tensor::zeros(allocator, {total}, dtype, "gradients");
    int64_t offset = 0;
    for (Parameter* p : parameters_) {
      if (p->role != role) continue;
      if (own_values) p->value = value_sections_[section].window(offset, p->shape);
      p->grad = grad_sections_[section].window(offset, p->shape);
      offset += padded(p);
    }
  }
}

void ParameterArena::begin_gradients() {
  for (Parameter* p : parameters_) p->has_grad = false;
}

void ParameterArena::end_gradients(Parameter::Role role) {
  for (Parameter* p : parameters_) {
    if (p->has_grad || p->role != role) continue;
    std::memset(p->grad.raw(), 0, p->grad.bytes());
    p->has_grad = true;
  }
}

}  // namespace ermoe
