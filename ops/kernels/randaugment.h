// Contract of RandAugment (Cubuk et al., arXiv 1909.13719) on u8 images, and the draws that every backend shares.
// Arithmetic on pixels is in integers, so every device rounds alike. Read next: ops/cpu/randaugment.cpp.
#pragma once

#include "core/device.h"
#include "core/rng.h"
#include "ops/kernels/augment.h"

#include <cstdint>

namespace ermoe {

/// The paper's list. Inversion is not among them: it is solarize at full strength.
enum class ImageOperation {
  identity,
  autocontrast,
  equalize,
  rotate,
  posterize,
  solarize,
  color,
  contrast,
  brightness,
  sharpness,
  shear_x,
  shear_y,
  translate_x,
  translate_y
};
inline constexpr int image_operations = 14;

struct RandAugmentDims {
  int64_t batch = 0;     // B
  int64_t side = 0;      // S
  int64_t channels = 0;  // 1 or 3
  int64_t operations = 0;
  double strength = 0;  // 0 to 1
  RngKey key;
};

struct DrawnOperation {
  ImageOperation operation = ImageOperation::identity;
  double strength = 0;  // -1 to 1
};

/// Operation i of image b: one of the list with a random sign.
ERMOE_HD inline DrawnOperation draw_operation(const RandAugmentDims& dims, int64_t b, int64_t i) {
  constexpr uint64_t first_index = 16;  // those before are of the placement and the erased rectangle
  const Random4 r = philox(dims.key.fold(static_cast<uint64_t>(b)), first_index + static_cast<uint64_t>(i));
  const auto operation = static_cast<ImageOperation>(below(r.x[0], image_operations));
  return {.operation = operation, .strength = uniform(r.x[1]) < 0.5f ? -dims.strength : dims.strength};
}

namespace cpu {

/// Applies one operation to `image` (S, S, channels) in place; `scratch` is as large. Strength 0 changes nothing but in
/// autocontrast and equalize, which have no strength. At strength 1: rotate 30°, shear by 0.3, translate by 0.45 S (black
/// comes in), posterize to 4 bits, solarize everything, factors 0.1 or 1.9 for color, contrast, brightness and sharpness.
void apply_operation(const DrawnOperation& drawn, int64_t side, int64_t channels, uint8_t* image, uint8_t* scratch);

/// varied (B, S, S, channels) from pixels, likewise; `scratch` is as large. Image b gets its drawn operations in order.
void randaugment(const RandAugmentDims& dims, const uint8_t* pixels, uint8_t* varied, uint8_t* scratch);

}  // namespace cpu

namespace cuda {

void randaugment(const Stream& stream, const RandAugmentDims& dims, const uint8_t* pixels, uint8_t* varied, uint8_t* scratch);

}  // namespace cuda
}  // namespace ermoe
