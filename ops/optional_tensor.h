// What ops share that take tensors which may be left out: pointers of them, and the check of an orthonormal factor's bf16 twin.
#pragma once

#include "core/tensor.h"

namespace ermoe {

/// Null where the tensor is undefined.
template <typename T>
T* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

/// Throws unless `twin` is undefined, or bf16 and of the shape of the f32 `factor`, which the error calls `which`.
inline void check_twin(const char* op, const char* which, const Tensor& factor, const Tensor& twin) {
  if (!twin.defined()) return;
  check(factor.dtype() == DType::f32 && twin.dtype() == DType::bf16 && twin.shape() == factor.shape(), "[{}] {} {} {} but a twin {} {}", op,
        which, factor.shape().str(), name_of(factor.dtype()), name_of(twin.dtype()), twin.shape().str());
}

}  // namespace ermoe
