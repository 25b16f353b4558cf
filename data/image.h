// A decoded picture in host memory, as files give it: rows of interleaved bytes. Loaders turn it into tensors.
// Decoders (data/decode.h) make it, data/resize.h brings it to the model's size, data/encode_png.h writes it.
#pragma once

#include <cstdint>
#include <vector>

namespace ermoe {

/// A picture of 8-bit samples, row by row from the top, channels interleaved.
struct Image {
  int64_t height = 0;
  int64_t width = 0;
  int64_t channels = 3;         // 3: R, G, B (what decoders give); 1: grey
  std::vector<uint8_t> pixels;  // (height, width, channels)

  bool operator==(const Image&) const = default;
};

/// The luma of an RGB picture, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), rounded; a grey picture is returned as it is.
Image to_grey(const Image& image);

/// A grey picture with its channel repeated three times; an RGB picture is returned as it is.
Image to_rgb(const Image& image);

}  // namespace ermoe
