// Writing pictures as PNG: expert maps, charts and reports. The opposite of data/decode.h.
#pragma once

#include "data/image.h"

#include <string>

namespace ermoe {

/// The bytes of a PNG file with the picture, RGB or grey. Throws `Error` where the image has no pixels or is malformed.
std::string encode_png(const Image& image);

/// Writes the picture to `path`, atomically. Throws `Error` or `InputError` where that is impossible.
void write_png(const std::string& path, const Image& image);

}  // namespace ermoe
