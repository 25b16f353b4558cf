// What every op asks of its inputs before it looks at their shapes.
#pragma once

#include "autograd/variable.h"

#include <initializer_list>

namespace ermoe {

/// Throws unless the first input is f32, f64 or bf16 and every other one has the same dtype. Undefined inputs after the first are
/// optional ones that were left out.
inline void check_floats(const char* op, std::initializer_list<const Variable*> inputs) {
  const Variable& first = **inputs.begin();
  check(first.defined(), "[{}] the first input is undefined", op);
  check(first.dtype() == DType::f32 || first.dtype() == DType::f64 || first.dtype() == DType::bf16,
        "[{}] wants f32, f64 or bf16 but got {}", op, name_of(first.dtype()));
  for (const Variable* input : inputs)
    check(!input->defined() || input->dtype() == first.dtype(), "[{}] {} {} beside {} {}", op, name_of(first.dtype()), first.shape().str(),
          name_of(input->dtype()), input->shape().str());
}

}  // namespace ermoe
