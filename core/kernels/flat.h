// Contract of the kernels over flat memory that tensors themselves need. Read next: core/flat.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe::cuda {

/// x_i = value. f32, bf16.
template <typename T>
void fill(const Stream& stream, int64_t numel, double value, T* x /* (numel) */);

/// to_i (+)= from_i. Both f32 or bf16.
template <typename From, typename To>
void convert(const Stream& stream, int64_t numel, const From* from, To* to, Accumulate mode);

}  // namespace ermoe::cuda
