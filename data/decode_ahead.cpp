// Read data/decode_ahead.h first.
#include "data/decode_ahead.h"

#include "core/error.h"
#include "data/decode_formats.h"
#include "data/plain_jpeg.h"

#include <algorithm>

namespace ermoe {
namespace {

Image copy_of(const JpegPixels& pixels) {
  const auto values = static_cast<size_t>(pixels.height * pixels.width * 3);
  return {pixels.height, pixels.width, 3, {pixels.rgb.get(), pixels.rgb.get() + values}};
}

/// Only the rows and columns of the box are copied: the rest of a photograph is a lot of memory to touch.
Image crop_of(const JpegPixels& pixels, const CropBox& box) {
  check(box.top >= 0 && box.left >= 0 && box.height > 0 && box.width > 0 && box.top <= pixels.height - box.height &&
            box.left <= pixels.width - box.width,
        "[decode_ahead] ({}, {}) at ({}, {}) of an image ({}, {})", box.height, box.width, box.top, box.left, pixels.height, pixels.width);
  Image part{box.height, box.width, 3, {}};
  part.pixels.reserve(static_cast<size_t>(box.height * box.width * 3));
  for (int64_t y = box.top; y < box.top + box.height; ++y) {
    const uint8_t* row = pixels.rgb.get() + (y * pixels.width + box.left) * 3;
    part.pixels.insert(part.pixels.end(), row, row + box.width * 3);
  }
  return part;
}

bool within(const PlainJpeg& jpeg, const DecodeLimits& limits) {
  return jpeg.height * jpeg.width <= std::min(limits.max_pixels, limits.max_bytes / 3);
}

}  // namespace

FileAhead::FileAhead(std::string bytes, JpegEngine& engine, DecodeLimits limits) : limits_(limits) {
  const auto plain = find_plain_jpeg(std::as_bytes(std::span(bytes)));
  if (plain) bytes.resize(plain->bytes);  // cameras put a second picture behind the first
  bytes_ = std::make_shared<const std::string>(std::move(bytes));
  if (!plain || !within(*plain, limits)) return;
  orientation_ = plain->orientation;
  pixels_ = engine.start(bytes_, plain->height, plain->width);
}

JpegPixels FileAhead::wait() { return pixels_.valid() ? pixels_.get() : JpegPixels{}; }

Image FileAhead::image(std::string_view name) {
  const JpegPixels pixels = wait();
  if (!pixels.rgb) return decode_image(bytes(), name, limits_);
  return apply_orientation(copy_of(pixels), orientation_);
}

Image FileAhead::part(std::string_view name, const WantedPart& wanted) {
  const JpegPixels pixels = wait();
  if (!pixels.rgb) return decode_part(bytes(), name, wanted, limits_);
  if (orientation_ == 1) return crop_of(pixels, wanted.choose(pixels.height, pixels.width));
  const Image whole = apply_orientation(copy_of(pixels), orientation_);
  return crop(whole, wanted.choose(whole.height, whole.width));
}

}  // namespace ermoe
