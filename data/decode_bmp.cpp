// BMP, read here because stb_image takes colours beyond the palette from uninitialised memory and knows no run lengths.
// A file header, one of several generations of info headers, a palette for up to 8 bits a pixel, then rows, the lowest first.
#include "core/error.h"
#include "data/decode_formats.h"

#include <algorithm>
#include <array>
#include <bit>

namespace ermoe {
namespace {

constexpr int64_t file_header_size = 14;
constexpr int64_t old_header_size = 12;   // OS/2 1: 16-bit sizes, palette of 3 bytes
constexpr int64_t info_header_size = 40;  // Windows 3, and the start of all later ones
constexpr int64_t masks_offset = file_header_size + info_header_size;

enum class Coding : uint32_t { plain = 0, runs_8 = 1, runs_4 = 2, masks = 3, masks_with_alpha = 6 };

class BmpDecoder {
 public:
  BmpDecoder(std::span<const std::byte> bytes, std::string_view name) : bytes_(bytes), name_(name) {}

  Image decode(const DecodeLimits& limits) {
    read_header();
    check_image_size(name_, height_, width_, limits);
    const bool runs = coding_ == Coding::runs_8 || coding_ == Coding::runs_4;
    require(runs || (stride() * (height_ - 1) + (width_ * bits_ + 7) / 8 <= size() - pixels_), "it ends before its last pixel");
    if (bits_ <= 8)
      read_palette();
    else
      read_masks();
    Image image{height_, width_, 3, std::vector<uint8_t>(static_cast<size_t>(height_ * width_ * 3))};
    if (runs) read_runs();
    for (int64_t y = 0; y < height_; ++y) {
      uint8_t* rgb = image.pixels.data() + (top_down_ ? y : height_ - 1 - y) * width_ * 3;
      if (bits_ <= 8)
        colour_row(y, rgb);
      else
        direct_row(y, rgb);
    }
    return image;
  }

 private:
  void require(bool ok, std::string_view fault) const { check_input(ok, "{}: the BMP is damaged or of a kind not read: {}", name_, fault); }

  int64_t size() const { return static_cast<int64_t>(bytes_.size()); }
  int64_t stride() const { return (width_ * bits_ + 31) / 32 * 4; }
  uint8_t byte(int64_t at) const { return std::to_integer<uint8_t>(bytes_[static_cast<size_t>(at)]); }
  /// A little-endian number of `count` bytes.
  uint32_t number(int64_t at, int64_t count) const {
    require(at <= size() - count, "it ends within its header");
    uint32_t value = 0;
    for (int64_t i = 0; i < count; ++i) value |= uint32_t{byte(at + i)} << (8 * i);
    return value;
  }

  void read_header() {
    pixels_ = number(10, 4);
    header_ = number(14, 4);
    const bool old = header_ == old_header_size;
    require(old || (header_ >= info_header_size && header_ <= 1024), "its header is of no known size");
    width_ = old ? int64_t{number(18, 2)} : static_cast<int32_t>(number(18, 4));
    height_ = old ? int64_t{number(20, 2)} : static_cast<int32_t>(number(22, 4));
    top_down_ = height_ < 0;
    height_ = std::abs(height_);
    require(number(old ? 22 : 26, 2) == 1, "it has more than one plane");
    bits_ = number(old ? 24 : 28, 2);
    coding_ = static_cast<Coding>(old ? 0 : number(30, 4));
    const bool direct = bits_ == 16 || bits_ == 24 || bits_ == 32;
    require(direct || bits_ == 1 || bits_ == 2 || bits_ == 4 || bits_ == 8, "its pixels have an unknown number of bits");
    switch (coding_) {
      case Coding::plain: break;
      case Coding::runs_8: require(bits_ == 8, "run lengths do not fit its number of bits"); break;
      case Coding::runs_4: require(bits_ == 4, "run lengths do not fit its number of bits"); break;
      case Coding::masks:
      case Coding::masks_with_alpha: require(bits_ == 16 || bits_ == 32, "bit masks do not fit its number of bits"); break;
      default: require(false, "its compression is unknown");
    }
    require(pixels_ >= file_header_size + header_ && pixels_ <= size(), "its pixels begin at an impossible place");
  }

  void read_palette() {
    const bool old = header_ == old_header_size;
    const int64_t entry = old ? 3 : 4, used = old ? 0 : number(46, 4), most = int64_t{1} << bits_;
    const int64_t room = (pixels_ - file_header_size - header_) / entry;
    colours_ = std::min(room, used == 0 ? most : std::min(used, most));
    for (int64_t i = 0; i < colours_; ++i)
      for (int64_t c = 0; c < 3; ++c)
        palette_[static_cast<size_t>(i)][static_cast<size_t>(2 - c)] = byte(file_header_size + header_ + i * entry + c);
  }

  void read_masks() {
    if (coding_ != Coding::plain)
      for (size_t c = 0; c < 3; ++c) masks_[c] = number(masks_offset + 4 * static_cast<int64_t>(c), 4);
    else if (bits_ == 16)
      masks_ = {0x7c00, 0x03e0, 0x001f};
  }

  void colour_row(int64_t y, uint8_t* rgb) const {
    for (int64_t x = 0; x < width_; ++x, rgb += 3) {
      int64_t colour;
      if (coding_ == Coding::plain) {
        const int64_t bit = x * bits_;
        colour = byte(pixels_ + y * stride() + bit / 8) >> (8 - bits_ - bit % 8) & ((1 << bits_) - 1);
      } else {
        colour = indices_[static_cast<size_t>(y * width_ + x)];
      }
      require(colour < colours_, "a pixel has a colour that its palette lacks");
      std::ranges::copy(palette_[static_cast<size_t>(colour)], rgb);
    }
  }

  void direct_row(int64_t y, uint8_t* rgb) const {
    const int64_t step = bits_ / 8;
    const int64_t row = pixels_ + y * stride();
    for (int64_t x = 0; x < width_; ++x) {
      const uint32_t pixel = number(row + x * step, step);
      for (const uint32_t mask : masks_) *rgb++ = scaled(pixel, mask);
    }
  }

  /// The bits under `mask`, stretched so that all of them set is 255.
  static uint8_t scaled(uint32_t pixel, uint32_t mask) {
    if (mask == 0) return 0;
    const int shift = std::countr_zero(mask);
    const uint64_t most = mask >> shift, value = (pixel & mask) >> shift;
    return static_cast<uint8_t>((value * 255 + most / 2) / most);
  }

  /// Fills `indices_` from pairs of bytes: (count, colour), or (0, what): 0 next row, 1 end, 2 jump, 3 and more literal colours.
  void read_runs() {
    indices_.resize(static_cast<size_t>(height_ * width_));
    int64_t at = pixels_, x = 0, y = 0;
    const auto next = [&] {
      require(at < size(), "it ends before its last pixel");
      return byte(at++);
    };
    const auto put = [&](int64_t count, auto colour_of) {
      require(y < height_ && count <= width_ - x, "a run of pixels reaches outside");
      for (int64_t i = 0; i < count; ++i) indices_[static_cast<size_t>(y * width_ + x++)] = colour_of(i);
    };
    // With 4 bits, two colours share a byte and take turns.
    const auto half = [&](uint8_t pair, int64_t i) { return static_cast<uint8_t>(bits_ == 8 ? pair : i % 2 == 0 ? pair >> 4 : pair & 15); };
    for (;;) {
      const uint8_t count = next(), what = next();
      if (count > 0) {
        put(count, [&](int64_t i) { return half(what, i); });
      } else if (what == 0) {
        x = 0;
        ++y;
      } else if (what == 1) {
        return;
      } else if (what == 2) {
        x += next();
        y += next();
        require(x <= width_ && y < height_, "a run of pixels reaches outside");
      } else {
        uint8_t pair = 0;
        const int64_t start = at;
        put(what, [&](int64_t i) { return half(bits_ == 8 || i % 2 == 0 ? pair = next() : pair, i); });
        // Literal colours are padded to an even number of bytes.
        if ((at - start) % 2 != 0) next();
      }
    }
  }

  std::span<const std::byte> bytes_;
  std::string_view name_;
  int64_t pixels_ = 0;  // where the first row begins
  int64_t header_ = 0;  // bytes of the info header
  int64_t width_ = 0, height_ = 0, bits_ = 0;
  bool top_down_ = false;
  Coding coding_ = Coding::plain;
  int64_t colours_ = 0;
  std::array<std::array<uint8_t, 3>, 256> palette_{};            // R, G, B; the first colours_ are set
  std::array<uint32_t, 3> masks_{0xff0000, 0x00ff00, 0x0000ff};  // of R, G, B
  std::vector<uint8_t> indices_;                                 // (H, W) in file order, of run-length-coded files
};

}  // namespace

Image decode_bmp(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits) {
  return BmpDecoder(bytes, name).decode(limits);
}

}  // namespace ermoe
