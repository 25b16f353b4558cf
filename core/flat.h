// Whole tensors at once, on the device they lie on: fill, convert, add. What the tape, models' initialisation and copies
// of weights need; ops proper live in ops/. Read next: autograd/variable.h.
#pragma once

#include "core/accumulate.h"
#include "core/tensor.h"

namespace ermoe {

/// Every element = value. f32 or f64, on a GPU f32 or bf16.
void fill(const Tensor& t, double value);

/// to (+)= from, shapes equal. Float dtypes (f32, f64, bf16), which may differ; on a GPU f32 or bf16.
void convert(const Tensor& from, const Tensor& to, Accumulate mode = Accumulate::overwrite);

}  // namespace ermoe
