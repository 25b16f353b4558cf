// Contract of cutting images into patches, which may reach over their neighbours. Images are volumes whose first side is 1.
// Read next: ops/cpu/patch_embed.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct PatchDims {
  int64_t batch = 0, channels = 0;
  int64_t grid[3] = {1, 1, 1};    // patches along each side
  int64_t patch[3] = {1, 1, 1};   // elements from one patch to the next along each side
  int64_t margin[3] = {0, 0, 0};  // elements before and behind these that a patch has too

  constexpr int64_t tokens() const { return grid[0] * grid[1] * grid[2]; }
  constexpr int64_t side(int axis) const { return grid[axis] * patch[axis]; }
  /// Elements of a patch along a side.
  constexpr int64_t extent(int axis) const { return patch[axis] + 2 * margin[axis]; }
  constexpr int64_t patch_elements() const { return extent(0) * extent(1) * extent(2); }
  constexpr bool overlap() const { return margin[0] + margin[1] + margin[2] > 0; }
};

namespace cpu {

/// y (batch, tokens, channels · patch_elements) = the patches of x (batch, channels, side(0), side(1), side(2)); 0 beyond its edges.
template <typename T>
void extract_patches_forward(const PatchDims& dims, const T* x, T* y);

/// dx (+)= the image that the patches dy make up; where they overlap, their sum.
template <typename T>
void extract_patches_backward(const PatchDims& dims, const T* dy, T* dx, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void extract_patches_forward(const Stream& stream, const PatchDims& dims, const T* x, T* y);
template <typename T>
void extract_patches_backward(const Stream& stream, const PatchDims& dims, const T* dy, T* dx, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
