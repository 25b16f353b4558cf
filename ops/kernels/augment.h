// Contract of crop, flip, normalisation and erasing in one pass, and the draws that every backend shares.
// Read next: ops/cpu/augment.cpp.
#pragma once

#include "core/device.h"
#include "core/rng.h"

#include <cmath>
#include <cstdint>

namespace ermoe {

struct AugmentDims {
  int64_t batch = 0;     // B
  int64_t side = 0;      // S
  int64_t channels = 0;  // 1 or 3
  int64_t crop_padding = 0;
  bool flip = false;
  double erasing = 0;
  int64_t first = 0;  // number of the first image among those of all ranks
  RngKey key;
};

/// What each pixel value becomes, by channel. A table gives the same bits on every path and device.
struct PixelTable {
  float value[3][256];
};

struct Rectangle {
  int64_t top = 0, left = 0, height = 0, width = 0;
};

/// Where output pixel (y, x) comes from: source row y + down, column x + right (S-1-x + right where mirrored); black outside.
struct Placement {
  int64_t down = 0, right = 0;
  bool mirrored = false;
  Rectangle erased;  // of the output; empty: none
};

/// Integer in [0, n) from one random word.
ERMOE_HD inline int64_t below(uint32_t word, int64_t n) { return static_cast<int64_t>((uint64_t{word} * static_cast<uint64_t>(n)) >> 32); }

/// A rectangle of 2 % to 33 % of the area with an aspect ratio of 0.3 to 3.3 (log-uniform), drawn until one fits, ten times at most.
ERMOE_HD inline Rectangle draw_erased(RngKey image_key, int64_t side) {
  constexpr uint64_t first_index = 1;  // index 0 is the placement's
  for (uint64_t attempt = 0; attempt < 10; ++attempt) {
    const Random4 r = philox(image_key, first_index + attempt);
    const double area = (0.02 + (0.33 - 0.02) * uniform(r.x[0])) * static_cast<double>(side) * static_cast<double>(side);
    const double aspect = std::exp(std::log(0.3) + std::log(3.3 / 0.3) * uniform(r.x[1]));
    const auto height = static_cast<int64_t>(std::round(std::sqrt(area * aspect)));
    const auto width = static_cast<int64_t>(std::round(std::sqrt(area / aspect)));
    if (height < 1 || width < 1 || height >= side || width >= side) continue;
    return {.top = below(r.x[2], side - height + 1), .left = below(r.x[3], side - width + 1), .height = height, .width = width};
  }
  return {};
}

/// The draws of image b.
ERMOE_HD inline Placement draw_placement(const AugmentDims& dims, int64_t b) {
  const RngKey image_key = dims.key.fold(static_cast<uint64_t>(dims.first + b));
  const Random4 r = philox(image_key, uint64_t{0});
  Placement place;
  place.down = below(r.x[0], 2 * dims.crop_padding + 1) - dims.crop_padding;
  place.right = below(r.x[1], 2 * dims.crop_padding + 1) - dims.crop_padding;
  place.mirrored = dims.flip && uniform(r.x[2]) < 0.5f;
  if (uniform(r.x[3]) < dims.erasing) place.erased = draw_erased(image_key, dims.side);
  return place;
}

namespace cpu {

/// images (B, channels, S, S) from pixels (B, S, S, channels): crop, flip, `table`, then zeros where erased.
void augment(const AugmentDims& dims, const PixelTable& table, const uint8_t* pixels, float* images);

}  // namespace cpu

namespace cuda {

void augment(const Stream& stream, const AugmentDims& dims, const PixelTable& table, const uint8_t* pixels, float* images);

}  // namespace cuda
}  // namespace ermoe
