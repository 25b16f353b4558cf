// Bringing photos to the model's size: antialiased resizing and cropping, on the host, as part of loading.
// The filters are PIL's, so that a model trained elsewhere sees the pixels that it knows. Read next: data/resize.cpp.
#pragma once

#include "data/image.h"

#include <cstdint>

namespace ermoe {

enum class ResizeFilter {
  bilinear,  // a triangle, 1 source pixel to each side (when enlarging)
  bicubic,   // Keys' cubic with a = -1/2, 2 source pixels to each side
};

/// A rectangle of an image, in pixels from its upper left corner.
struct CropBox {
  int64_t top, left, height, width;
};

/// The image scaled to (height, width). When shrinking, the filter is widened by the ratio, so that every source pixel counts.
/// Rows first, then columns, rounded to 8 bits between, as PIL's `Image.resize` does. Throws `Error` unless all sizes are positive.
Image resize(const Image& image, int64_t height, int64_t width, ResizeFilter filter = ResizeFilter::bicubic);

/// The image scaled so that its shorter side is `size` and its proportions stay; the longer side is rounded down.
Image resize_shorter_side(const Image& image, int64_t size, ResizeFilter filter = ResizeFilter::bicubic);

/// The part of the image inside `box`. Throws `Error` where the box is empty or reaches outside.
Image crop(const Image& image, const CropBox& box);

/// The middle (height, width) of the image. Throws `Error` where the image is smaller.
Image center_crop(const Image& image, int64_t height, int64_t width);

}  // namespace ermoe
