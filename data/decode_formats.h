// What the decoders share, private to the decoders in data/: one function a format, the size check, EXIF orientation.
#pragma once

#include "data/decode.h"

namespace ermoe {

Image decode_bmp(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits);
Image decode_jpeg(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits);
Image decode_jpeg_part(std::span<const std::byte> bytes, std::string_view name, const WantedPart& part, const DecodeLimits& limits);
Image decode_png(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits);
Image decode_pnm(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits);
/// GIF (first frame) and PSD (the merged picture).
Image decode_stb(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits);

/// Throws `InputError` unless both sizes are positive and an RGB picture of that size is within `limits`.
void check_image_size(std::string_view name, int64_t height, int64_t width, const DecodeLimits& limits);

/// The orientation (1 to 8) in an EXIF block, which begins with its TIFF header; 1 (upright) where there is none or the block makes no
/// sense.
int exif_orientation(std::span<const std::byte> exif);

/// Turns and mirrors a stored picture to how EXIF `orientation` says that it is to be seen.
Image apply_orientation(Image stored, int orientation);

}  // namespace ermoe
