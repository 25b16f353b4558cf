// A file that is odd in any way is no fault here: it is simply not plain, and the processor's decoder says what it is.
#include "data/plain_jpeg.h"

#include "data/decode_formats.h"

#include <array>
#include <cstring>

namespace ermoe {
namespace {

using Segment = std::span<const std::byte>;

int value(std::byte b) { return std::to_integer<int>(b); }
int64_t pair_at(Segment s, size_t at) { return value(s[at]) << 8 | value(s[at + 1]); }
int64_t blocks(int64_t pixels, int64_t side) { return (pixels + side - 1) / side; }

bool begins_with(Segment s, std::string_view tag) { return s.size() >= tag.size() && std::memcmp(s.data(), tag.data(), tag.size()) == 0; }

class MarkerWalk {
 public:
  explicit MarkerWalk(Segment file) : file_(file) {}

  std::optional<PlainJpeg> walk() {
    if (!begins_with(file_, "\xff\xd8")) return std::nullopt;
    for (size_t at = 2; at + 4 <= file_.size() && value(file_[at]) == 0xff;) {
      const int marker = value(file_[at + 1]);
      const auto length = static_cast<size_t>(pair_at(file_, at + 2));
      if (length < 2 || length > file_.size() - at - 2) return std::nullopt;
      const Segment segment = file_.subspan(at + 4, length - 2);
      at += 2 + length;
      if (marker == 0xda) return scan_header(segment) && scan(at) ? std::optional(found_) : std::nullopt;
      if (!header(marker, segment)) return std::nullopt;
    }
    return std::nullopt;
  }

 private:
  bool header(int marker, Segment s) {
    switch (marker) {
      case 0xc0: return frame(s);
      case 0xc4: return huffman_tables(s);
      case 0xdb: return quantization_tables(s);
      case 0xdd: restart_interval_ = s.size() == 2 ? pair_at(s, 0) : -1; return restart_interval_ >= 0;
      case 0xe1: exif(s); return true;
      // Adobe's marker says by 1 that the three colours are Y, Cb, Cr.
      case 0xee: return !begins_with(s, "Adobe") || (s.size() >= 12 && value(s[11]) == 1);
      default: return (marker >= 0xe0 && marker <= 0xef) || marker == 0xfe;
    }
  }

  /// B.2.2. Components numbered otherwise may be R, G, B.
  bool frame(Segment s) {
    if (s.size() != 15 || found_.width > 0 || value(s[0]) != 8 || value(s[5]) != 3) return false;
    found_.height = pair_at(s, 1);
    found_.width = pair_at(s, 3);
    for (size_t c = 0; c < 3; ++c) {
      const int sampling = value(s[7 + 3 * c]), table = value(s[8 + 3 * c]);
      if (value(s[6 + 3 * c]) != static_cast<int>(c) + 1 || table > 3) return false;
      if (c == 0 ? sampling != 0x11 && sampling != 0x21 && sampling != 0x22 : sampling != 0x11) return false;
      if (c == 0) luma_across_ = sampling >> 4, luma_down_ = sampling & 15;
      quantization_of_[c] = static_cast<size_t>(table);
    }
    return found_.height > 0 && found_.width > 0;
  }

  /// B.2.4.1, of 8 bits.
  bool quantization_tables(Segment s) {
    for (; s.size() >= 65; s = s.subspan(65)) {
      if (value(s[0]) > 3) return false;
      for (const std::byte step : s.subspan(1, 64))
        if (step == std::byte{0}) return false;
      quantization_seen_[static_cast<size_t>(s[0])] = true;
    }
    return s.empty();
  }

  /// B.2.4.2. Codes must fit into their lengths, and symbols be such as 8 bits need.
  bool huffman_tables(Segment s) {
    while (s.size() >= 17) {
      const int kind = value(s[0]) >> 4, number = value(s[0]) & 15;
      size_t symbols = 0;
      int free_codes = 1;
      for (size_t length = 1; length <= 16; ++length) {
        symbols += static_cast<size_t>(s[length]);
        free_codes = 2 * free_codes - value(s[length]);
        if (free_codes < 0) return false;
      }
      if (kind > 1 || number > 1 || symbols == 0 || symbols > 256 || symbols > s.size() - 17) return false;
      for (const std::byte symbol : s.subspan(17, symbols))
        if (kind == 0 ? value(symbol) > 11 : (value(symbol) & 15) > 10) return false;
      huffman_seen_[static_cast<size_t>(2 * kind + number)] = true;
      s = s.subspan(17 + symbols);
    }
    return s.empty();
  }

  void exif(Segment s) {
    constexpr std::string_view tag("Exif\0\0", 6);
    if (exif_seen_ || !begins_with(s, tag)) return;
    exif_seen_ = true;  // as where the processor decodes, the first block counts
    found_.orientation = exif_orientation(s.subspan(tag.size()));
  }

  /// B.2.3: all components together, all coefficients at once.
  bool scan_header(Segment s) const {
    if (s.size() != 10 || found_.width == 0 || value(s[0]) != 3) return false;
    for (size_t c = 0; c < 3; ++c) {
      const int dc = value(s[2 + 2 * c]) >> 4, ac = value(s[2 + 2 * c]) & 15;
      if (value(s[1 + 2 * c]) != static_cast<int>(c) + 1 || dc > 1 || ac > 1) return false;
      if (!huffman_seen_[static_cast<size_t>(dc)] || !huffman_seen_[static_cast<size_t>(2 + ac)]) return false;
      if (!quantization_seen_[quantization_of_[c]]) return false;
    }
    return value(s[7]) == 0 && value(s[8]) == 63 && value(s[9]) == 0;
  }

  /// B.1.1.5: compressed data, in which a byte 0xff is followed by 0, between restart markers that count from 0 to 7.
  bool scan(size_t at) {
    const size_t begin = at;
    int64_t restarts = 0;
    while (at < file_.size()) {
      const void* hit = std::memchr(file_.data() + at, 0xff, file_.size() - at);
      if (hit == nullptr) return false;
      at = static_cast<size_t>(static_cast<const std::byte*>(hit) - file_.data()) + 2;
      if (at > file_.size()) return false;
      const int next = value(file_[at - 1]);
      if (next == 0xd9) {
        found_.bytes = at;
        return enough(static_cast<int64_t>(at - begin), restarts);
      }
      if (next != 0 && next != 0xd0 + restarts++ % 8) return false;
    }
    return false;
  }

  /// A block of 8 x 8 takes at least a bit for its mean and one that says that there is no more.
  bool enough(int64_t data_bytes, int64_t restarts) const {
    const int64_t units = blocks(found_.height, 8 * luma_down_) * blocks(found_.width, 8 * luma_across_);
    const int64_t wanted = restart_interval_ > 0 ? blocks(units, restart_interval_) - 1 : 0;
    return restarts == wanted && units * (luma_down_ * luma_across_ + 2) * 2 <= data_bytes * 8;
  }

  Segment file_;
  PlainJpeg found_;
  int luma_across_ = 1, luma_down_ = 1;  // Y samples to one of Cb
  int64_t restart_interval_ = 0;         // units between two restart markers; 0: there are none
  bool exif_seen_ = false;
  std::array<size_t, 3> quantization_of_{};
  std::array<bool, 4> quantization_seen_{};
  std::array<bool, 4> huffman_seen_{};  // two for means, two for the rest
};

}  // namespace

std::optional<PlainJpeg> find_plain_jpeg(std::span<const std::byte> bytes) { return MarkerWalk(bytes).walk(); }

}  // namespace ermoe
