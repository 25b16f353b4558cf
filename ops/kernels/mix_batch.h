// Contract of mixup and cutmix once their numbers are drawn. Read next: ops/cpu/mix_batch.cpp.
#pragma once

#include "core/device.h"
#include "ops/kernels/augment.h"

#include <cstdint>

namespace ermoe {

struct MixDims {
  int64_t batch = 0;  // B
  int64_t channels = 0;
  int64_t height = 0, width = 0;
};

namespace cpu {

/// Rows b and B-1-b of x (B, width) become own x_b + (1 - own) x_(B-1-b), in place.
template <typename T>
void mix_rows(int64_t batch, int64_t width, double own, T* x);

/// Images b and B-1-b of (B, channels, height, width) exchange the pixels of `box`, in place.
template <typename T>
void swap_boxes(const MixDims& dims, const Rectangle& box, T* images);

}  // namespace cpu

namespace cuda {

template <typename T>
void mix_rows(const Stream& stream, int64_t batch, int64_t width, double own, T* x);
template <typename T>
void swap_boxes(const Stream& stream, const MixDims& dims, const Rectangle& box, T* images);

}  // namespace cuda
}  // namespace ermoe
