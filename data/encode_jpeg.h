// Writing photographs as JPEG: made-up data sets to measure loading with. The opposite of data/decode_jpeg.cpp.
#pragma once

#include "data/image.h"

#include <string>

namespace ermoe {

/// The bytes of a baseline JPEG with the picture, RGB or grey, chroma at half resolution. `quality` from 1 to 100. Throws
/// `Error` where the image has no pixels, is malformed or larger than JPEG allows.
std::string encode_jpeg(const Image& image, int quality);

}  // namespace ermoe
