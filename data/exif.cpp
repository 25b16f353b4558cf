// The one thing that training needs from EXIF: which way is up. Cameras store the sensor's rows and leave turning to the reader.
#include "data/decode_formats.h"

#include <cstring>
#include <utility>

namespace ermoe {
namespace {

constexpr uint16_t orientation_tag = 0x0112;
constexpr uint16_t type_short = 3;

/// Reads numbers of either byte order; outside the block every number is 0.
struct TiffBlock {
  std::span<const std::byte> bytes;
  bool big_endian;

  uint32_t number(size_t offset, size_t size) const {
    if (offset > bytes.size() || bytes.size() - offset < size) return 0;
    uint32_t value = 0;
    for (size_t i = 0; i < size; ++i) {
      const size_t shift = 8 * (big_endian ? size - 1 - i : i);
      value |= std::to_integer<uint32_t>(bytes[offset + i]) << shift;
    }
    return value;
  }
};

}  // namespace

int exif_orientation(std::span<const std::byte> exif) {
  constexpr int upright = 1;
  if (exif.size() < 8) return upright;
  const bool big_endian = std::memcmp(exif.data(), "MM", 2) == 0;
  if (!big_endian && std::memcmp(exif.data(), "II", 2) != 0) return upright;
  const TiffBlock block{exif, big_endian};
  if (block.number(2, 2) != 42) return upright;
  const size_t directory = block.number(4, 4);
  const size_t count = block.number(directory, 2);
  for (size_t i = 0; i < count; ++i) {
    const size_t entry = directory + 2 + i * 12;
    if (block.number(entry, 2) != orientation_tag || block.number(entry + 2, 2) != type_short) continue;
    const uint32_t value = block.number(entry + 8, 2);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : upright;
  }
  return upright;
}

Image apply_orientation(Image stored, int orientation) {
  if (orientation <= 1 || orientation > 8) return stored;
  const bool transposed = orientation >= 5;
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  Image seen{stored.height, stored.width, stored.channels, std::vector<uint8_t>(stored.pixels.size())};
  if (transposed) std::swap(seen.height, seen.width);
  const auto channels = static_cast<size_t>(stored.channels);
  uint8_t* out = seen.pixels.data();
  for (int64_t y = 0; y < seen.height; ++y)
    for (int64_t x = 0; x < seen.width; ++x, out += channels) {
      int64_t row = transposed ? x : y;
      int64_t column = transposed ? y : x;
      if (from_bottom) row = stored.height - 1 - row;
      if (from_right) column = stored.width - 1 - column;
      std::memcpy(out, &stored.pixels[static_cast<size_t>((row * stored.width + column) * stored.channels)], channels);
    }
  return seen;
}

}  // namespace ermoe
