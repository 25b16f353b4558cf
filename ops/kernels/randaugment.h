// Contract of RandAugment (Cubuk et al., arXiv 1909.13719) on u8 images, and the draws that every backend shares.
// Arithmetic on pixels is in integers, so every device rounds alike. Read next: ops/cpu/randaugment.cpp.
#pragma once

#include "core/device.h"
#include "core/rng.h"
#include "ops/kernels/augment.h"

#include <cmath>
#include <cstdint>
#include <numbers>

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
  int64_t first = 0;    // number of the first image among those of all ranks
  RngKey key;
};

struct DrawnOperation {
  ImageOperation operation = ImageOperation::identity;
  double strength = 0;  // -1 to 1
};

/// Operation i of image b: one of the list with a random sign.
ERMOE_HD inline DrawnOperation draw_operation(const RandAugmentDims& dims, int64_t b, int64_t i) {
  constexpr uint64_t first_index = 16;  // those before are of the placement and the erased rectangle
  const Random4 r = philox(dims.key.fold(static_cast<uint64_t>(dims.first + b)), first_index + static_cast<uint64_t>(i));
  const auto operation = static_cast<ImageOperation>(below(r.x[0], image_operations));
  return {.operation = operation, .strength = uniform(r.x[1]) < 0.5f ? -dims.strength : dims.strength};
}

// What both backends do to a pixel.

/// Of a blend base + factor (value - base) in 1/65536: 1 leaves the image as it was.
inline int blend_factor(double strength) { return static_cast<int>(std::lround(65536 * (1 + 0.9 * strength))); }

ERMOE_HD inline uint8_t blend(int base, int value, int factor) {
  const int blended = (base * 65536 + factor * (value - base) + 32768) >> 16;
  return static_cast<uint8_t>(blended < 0 ? 0 : blended > 255 ? 255 : blended);
}

/// ITU-R 601 luma in 1/65536; a grey pixel's own value.
ERMOE_HD inline int luma(const uint8_t* pixel, int64_t channels) {
  return channels == 1 ? pixel[0] : (19595 * pixel[0] + 38470 * pixel[1] + 7471 * pixel[2] + 32768) >> 16;
}

/// Low bits that posterize clears.
inline int cleared_bits(double strength) { return static_cast<int>(std::lround(4 * std::abs(strength))); }
/// From where on solarize inverts: 256 at strength 0, 0 at 1.
inline int solarize_threshold(double strength) { return static_cast<int>(std::lround(256 * (1 - std::abs(strength)))); }

/// Coordinates are in 2^-32 pixels: exact, and so fine that their rounding cannot be seen.
inline constexpr int coordinate_bits = 32;
inline constexpr int weight_bits = 8;
inline constexpr int64_t one_pixel = int64_t{1} << coordinate_bits;

/// Source point of an output point, both measured from the image's corner: x' = xx x + xy y + x0, y' likewise.
struct AffineMap {
  int64_t xx = one_pixel, xy = 0, x0 = 0, yx = 0, yy = one_pixel, y0 = 0;

  /// Source of the centre of the first pixel of a row: half a pixel right of the border, row + 1/2 below it. The next
  /// pixel's is (xx, yx) further.
  ERMOE_HD int64_t first_x(int64_t row) const { return x0 + ((xx + xy * (2 * row + 1)) >> 1); }
  ERMOE_HD int64_t first_y(int64_t row) const { return y0 + ((yx + yy * (2 * row + 1)) >> 1); }
};

/// What a rotation (about the image's centre), a shear or a translation does; the identity for every other operation.
inline AffineMap affine_map(ImageOperation operation, double strength, int64_t side) {
  const auto fixed = [](double pixels) { return static_cast<int64_t>(std::llround(pixels * static_cast<double>(one_pixel))); };
  const double angle = strength * std::numbers::pi / 6, cosine = std::cos(angle), sine = std::sin(angle);
  const double size = static_cast<double>(side), centre = size / 2;
  switch (operation) {
    case ImageOperation::rotate:
      return {.xx = fixed(cosine),
              .xy = fixed(sine),
              .x0 = fixed(centre - (cosine + sine) * centre),
              .yx = fixed(-sine),
              .yy = fixed(cosine),
              .y0 = fixed(centre - (cosine - sine) * centre)};
    case ImageOperation::shear_x: return {.xy = fixed(0.3 * strength)};
    case ImageOperation::shear_y: return {.yx = fixed(0.3 * strength)};
    case ImageOperation::translate_x: return {.x0 = fixed(0.45 * strength * size)};
    case ImageOperation::translate_y: return {.y0 = fixed(0.45 * strength * size)};
    default: return {};
  }
}

/// Bilinear between the four pixels of `image` (S, S, channels) nearest to (x, y); black comes in from outside.
ERMOE_HD inline void sample(const uint8_t* image, int64_t side, int64_t channels, int64_t x, int64_t y, uint8_t* pixel) {
  constexpr int one = 1 << weight_bits, shift = coordinate_bits - weight_bits;
  const int64_t last = side - 1, size = side * one_pixel, u = x - one_pixel / 2, v = y - one_pixel / 2;
  if (x < 0 || x >= size || y < 0 || y >= size) {
    for (int64_t c = 0; c < channels; ++c) pixel[c] = 0;
    return;
  }
  const int64_t left = u >> coordinate_bits, top = v >> coordinate_bits;  // -1 within half a pixel of the border
  const int wx = static_cast<int>((u & (one_pixel - 1)) >> shift), wy = static_cast<int>((v & (one_pixel - 1)) >> shift);
  const uint8_t* upper = image + (top < 0 ? 0 : top) * side * channels;
  const uint8_t* lower = image + (top + 1 > last ? last : top + 1) * side * channels;
  const int64_t a = (left < 0 ? 0 : left) * channels, b = (left + 1 > last ? last : left + 1) * channels;
  for (int64_t c = 0; c < channels; ++c) {
    const int above = upper[a + c] * (one - wx) + upper[b + c] * wx;
    const int beneath = lower[a + c] * (one - wx) + lower[b + c] * wx;
    pixel[c] = static_cast<uint8_t>((above * (one - wy) + beneath * wy + one * one / 2) >> (2 * weight_bits));
  }
}

/// Of a value that is not on the image's border, `p`: the image smoothed by a 3 x 3 kernel of ones, 5 in the middle.
ERMOE_HD inline int smoothed(const uint8_t* p, int64_t row, int64_t step) {
  const int around = p[-row - step] + p[-row] + p[-row + step] + p[-step] + p[step] + p[row - step] + p[row] + p[row + step];
  return (around + 5 * p[0] + 6) / 13;
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
