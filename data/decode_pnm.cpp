// Binary PNM, grey (P5) and colour (P6): a header in words, then raw samples of 8 or, big-endian, 16 bits.
// Read here because stb_image accepts files that end too early.
#include "core/error.h"
#include "data/decode_formats.h"

namespace ermoe {
namespace {

class PnmHeader {
 public:
  PnmHeader(std::span<const std::byte> bytes, std::string_view name) : bytes_(bytes), name_(name) {}

  /// The next decimal number; comments run from # to the end of the line.
  int64_t number() {
    while (is_space(peek()) || peek() == '#') {
      if (peek() == '#')
        while (peek() != '\n' && peek() != end) ++position_;
      else
        ++position_;
    }
    check_input(peek() >= '0' && peek() <= '9', "{}: the PNM header is damaged", name_);
    int64_t value = 0;
    for (; peek() >= '0' && peek() <= '9'; ++position_) {
      value = value * 10 + (peek() - '0');
      check_input(value <= INT32_MAX, "{}: the PNM header holds a number above {}", name_, INT32_MAX);
    }
    return value;
  }

  /// What follows the single space after the last number.
  std::span<const std::byte> samples() const {
    check_input(is_space(peek()), "{}: the PNM header is damaged", name_);
    return bytes_.subspan(position_ + 1);
  }

 private:
  static constexpr int end = -1;

  static bool is_space(int c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
  int peek() const { return position_ < bytes_.size() ? std::to_integer<int>(bytes_[position_]) : end; }

  std::span<const std::byte> bytes_;
  std::string_view name_;
  size_t position_ = 2;  // behind the magic number
};

}  // namespace

Image decode_pnm(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits) {
  const bool grey = bytes[1] == std::byte{'5'};
  PnmHeader header(bytes, name);
  const int64_t width = header.number(), height = header.number(), highest = header.number();
  check_image_size(name, height, width, limits);
  check_input(highest >= 1 && highest <= 65535, "{}: the PNM header says that white is {}, expected 1 to 65535", name, highest);
  const auto samples = header.samples();
  const size_t depth = highest > 255 ? 2 : 1;
  const auto count = static_cast<size_t>(height * width * (grey ? 1 : 3));
  check_input(samples.size() >= count * depth, "{}: the PNM ends too early: {} bytes of pixels, expected {}", name, samples.size(),
              count * depth);

  Image image{height, width, grey ? 1 : 3, std::vector<uint8_t>(count)};
  for (size_t i = 0; i < count; ++i) {
    int64_t value = std::to_integer<int64_t>(samples[i * depth]);
    if (depth == 2) value = value * 256 + std::to_integer<int64_t>(samples[i * 2 + 1]);
    image.pixels[i] = static_cast<uint8_t>((std::min(value, highest) * 255 + highest / 2) / highest);
  }
  return to_rgb(image);
}

}  // namespace ermoe
