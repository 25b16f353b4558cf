// Tensor maps: how a kernel's bulk copies (cuda/device/tma.cuh) see a matrix. Made on the host for each launch.
#pragma once

#include "core/bf16.h"

#include <cuda.h>

#include <cstdint>

namespace ermoe::cuda {

/// bf16, contiguous, of two axes, or of three where z is not 0; x comes first. `box_*`: what one copy brings, 64 elements along x at most,
/// which lie in shared memory with the 128-byte swizzle.
struct TensorMapArgs {
  const bf16* data = nullptr;   // aligned to 16 bytes
  int64_t x = 0, y = 0, z = 0;  // sizes; 8 divides x
  int box_x = 64, box_y = 64;
};

/// Throws `Error` where the driver refuses.
CUtensorMap tensor_map(const TensorMapArgs& args);

}  // namespace ermoe::cuda
