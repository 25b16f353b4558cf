// Conversions between the two kinds of pictures, RGB and grey.
#include "data/image.h"

#include "core/error.h"

namespace ermoe {

Image to_grey(const Image& image) {
  if (image.channels == 1) return image;
  check(image.channels == 3, "[to_grey] an image of {} channels, expected 1 or 3", image.channels);
  Image grey{image.height, image.width, 1, std::vector<uint8_t>(static_cast<size_t>(image.height * image.width))};
  for (size_t i = 0; i < grey.pixels.size(); ++i) {
    const uint8_t* p = &image.pixels[i * 3];
    grey.pixels[i] = static_cast<uint8_t>((299 * p[0] + 587 * p[1] + 114 * p[2] + 500) / 1000);
  }
  return grey;
}

Image to_rgb(const Image& image) {
  if (image.channels == 3) return image;
  check(image.channels == 1, "[to_rgb] an image of {} channels, expected 1 or 3", image.channels);
  Image rgb{image.height, image.width, 3, {}};
  rgb.pixels.reserve(image.pixels.size() * 3);
  for (const uint8_t v : image.pixels) rgb.pixels.insert(rgb.pixels.end(), 3, v);
  return rgb;
}

}  // namespace ermoe
