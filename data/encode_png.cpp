// PNG through libpng's simplified interface, which reports errors by value. See data/encode_png.h.
#include "data/encode_png.h"

#include "core/error.h"
#include "core/file_io.h"

#include <png.h>

namespace ermoe {

std::string encode_png(const Image& image) {
  const bool sound = image.height > 0 && image.width > 0 && (image.channels == 1 || image.channels == 3) &&
                     static_cast<int64_t>(image.pixels.size()) == image.height * image.width * image.channels;
  check(sound, "[encode_png] an image ({}, {}, {}) with {} samples", image.height, image.width, image.channels, image.pixels.size());
  check(image.height <= INT32_MAX && image.width <= INT32_MAX / 3, "[encode_png] an image ({}, {}, {}) is too large for PNG", image.height,
        image.width, image.channels);
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.height = static_cast<png_uint_32>(image.height);
  png.width = static_cast<png_uint_32>(image.width);
  png.format = image.channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::string bytes(size, '\0');
  const bool written = png_image_write_to_memory(&png, bytes.data(), &size, 0, image.pixels.data(), 0, nullptr) != 0;
  check(written, "[encode_png] libpng says: {}", png.message);
  bytes.resize(size);
  return bytes;
}

void write_png(const std::string& path, const Image& image) { write_file(path, encode_png(image)); }

}  // namespace ermoe
