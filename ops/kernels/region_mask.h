// Contract of the kernels that make a mask of experts from labels. Read next: ops/cpu/region_mask.cpp.
#pragma once

#include "core/device.h"
#include "core/rng.h"

#include <cstdint>

namespace ermoe {

struct RegionMaskDims {
  int64_t batch = 0;
  int64_t grid[3] = {};  // patches along each side, the last one fastest
  int64_t patch = 0;     // voxels a side
  int64_t prefix = 0;    // tokens before the patches
  int64_t experts = 0;   // E
  int64_t labels = 0;    // labels from here on belong to nobody
  int64_t least = 1;     // voxels that a patch wants

  ERMOE_HD int64_t tokens() const { return prefix + grid[0] * grid[1] * grid[2]; }
  ERMOE_HD int64_t voxels_a_patch() const { return patch * patch * patch; }
};

/// A label's place in the table; 0, which has no experts, for one that belongs to nobody.
ERMOE_HD inline int64_t place_of_label(int32_t label, int64_t labels) { return label > 0 && label < labels ? label : 0; }
ERMOE_HD inline int64_t place_of_label(float label, int64_t labels) {
  return label >= 0.5f && label < static_cast<float>(labels) - 0.5f ? static_cast<int64_t>(label + 0.5f) : 0;
}

/// Where voxel v of patch p of image b lies in labels (B, s0, s1, s2).
ERMOE_HD inline int64_t place_of_voxel(const RegionMaskDims& dims, int64_t b, int64_t p, int64_t v) {
  const int64_t P = dims.patch, *grid = dims.grid;
  const int64_t i = p / grid[2] / grid[1] * P + v / P / P, j = p / grid[2] % grid[1] * P + v / P % P, k = p % grid[2] * P + v % P;
  return ((b * grid[0] * P + i) * grid[1] * P + j) * grid[2] * P + k;
}

namespace cpu {

/// allow (B·T, E). Label: float or int32_t.
template <typename Label>
void region_mask(const RegionMaskDims& dims, const Label* labels, const int32_t* starts /* (labels + 1) */, const int32_t* ids,
                 uint8_t* allow);

}  // namespace cpu

namespace cuda {

template <typename Label>
void region_mask(const Stream& stream, const RegionMaskDims& dims, const Label* labels, const int32_t* starts, const int32_t* ids,
                 uint8_t* allow);

}  // namespace cuda
}  // namespace ermoe
