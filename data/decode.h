// Bytes of an image file to pixels, for every format that training data comes in. A file is judged by its first bytes, never by its
// extension. Data from the internet is hostile: sizes are checked from the header before anything is allocated, and damaged files are
// refused rather than half decoded. Read next: data/decode_formats.h (one decoder a format), data/resize.h.
#pragma once

#include "data/resize.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

namespace ermoe {

/// How large a decoded picture may be. A few kilobytes of file can claim gigabytes of pixels; these bounds refuse them.
struct DecodeLimits {
  int64_t max_pixels = int64_t{64} << 20;  // height * width
  int64_t max_bytes = int64_t{1} << 30;    // of the decoded pixels, and of a decoder's working memory where its library can be bounded
};

enum class ImageFormat { unknown, jpeg, png, bmp, gif, pnm, psd, tiff, webp, heif, jpeg2000, jpeg_xl };

/// The format that the first bytes announce. Formats that `decode_image` refuses are recognised too, to be named in its message.
ImageFormat image_format(std::span<const std::byte> bytes);

/// The format's usual name: "JPEG", "PNG", …
std::string_view image_format_name(ImageFormat format);

/// Decodes a file's bytes to RGB: JPEG, PNG (APNG: its default picture), BMP, GIF (first frame), binary PNM (P5, P6), and PSD (the merged
/// picture).
///
/// The EXIF orientation of JPEG and PNG is applied. Grey and CMYK become RGB; 16 bits are rounded to 8. An alpha channel is dropped and the
/// colour below it kept, as PIL's `convert("RGB")` does; colour profiles and gamma are not applied.
/// Throws `InputError`, one sentence beginning with `name`, where the format is not read here, the picture is larger than `limits`, or the
/// file is damaged, even where most of its pixels could be had.
Image decode_image(std::span<const std::byte> bytes, std::string_view name, DecodeLimits limits = {});

/// The part of a picture that somebody wants, who knows its size only once it is opened.
struct WantedPart {
  std::function<CropBox(int64_t height, int64_t width)> choose;  // of the picture as it is seen; inside of it
  int64_t side = 1;                                              // pixels that the part's shorter side must have at least
};

/// The wanted part of the picture. A JPEG is decoded there alone, and at a half, a quarter or an eighth of its size where the
/// part still has `side` pixels. Edges may then differ from those of the whole picture by what chroma is smoothed with, and by
/// the rounding of the box to the smaller scale. Throws as `decode_image` does, for damage outside the part as well.
Image decode_part(std::span<const std::byte> bytes, std::string_view name, const WantedPart& part, DecodeLimits limits = {});

}  // namespace ermoe
