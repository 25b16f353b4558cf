// Decoding: right pixels from every format, and neither truncation nor changed bytes nor hostile headers do worse than InputError.
#include "data/decode.h"

#include "core/error.h"
#include "data/encode_png.h"
#include "data/gzip.h"
#include "tests/data/image_samples.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdlib>
#include <map>

namespace ermoe::testing {
namespace {

using namespace std::string_literals;

Image decode(const std::string& bytes, DecodeLimits limits = {}) { return decode_image(bytes_of(bytes), "picture", limits); }

std::string fault(const std::string& bytes, DecodeLimits limits = {}) {
  try {
    decode(bytes, limits);
    return "was decoded";
  } catch (const InputError& e) {
    EXPECT_TRUE(std::string(e.what()).starts_with("picture: ")) << e.what();
    return e.what();
  }
}

/// The mean absolute difference of two pictures of one size.
double difference(const Image& a, const Image& b) {
  if (a.height != b.height || a.width != b.width || a.channels != b.channels) return 1e9;
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) sum += std::abs(a.pixels[i] - b.pixels[i]);
  return sum / static_cast<double>(a.pixels.size());
}

/// A chunk of a PNG file, with its checksum.
std::string png_chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  const uint32_t crc = static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size())));
  const auto big_endian = [](uint32_t v) { return std::string{char(v >> 24), char(v >> 16), char(v >> 8), char(v)}; };
  return big_endian(static_cast<uint32_t>(data.size())) + body + big_endian(crc);
}

/// A PNG of the given header around uncompressed rows, each with its filter byte.
std::string make_png(uint32_t height, uint32_t width, int bits, int colour_type, const std::string& rows,
                     const std::string& more_chunks = {}) {
  const std::string header{0, 0, char(width >> 8), char(width), 0, 0, char(height >> 8), char(height), char(bits), char(colour_type), 0,
                           0, 0};
  uLongf size = compressBound(rows.size());
  std::string packed(size, '\0');
  EXPECT_EQ(compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(rows.data()), rows.size()), Z_OK);
  packed.resize(size);
  return "\x89PNG\r\n\x1a\n"s + png_chunk("IHDR", header) + more_chunks + png_chunk("IDAT", packed) + png_chunk("IEND", "");
}

std::map<std::string, std::string> samples() {
  const Image image = gradient(9, 14);
  const std::string runs = "\x03\x01\x00\x03\x00\x01\x02\x00\x00\x00\x06\x02\x00\x01"s;
  return {
      {"png", encode_png(image)},
      {"jpeg", make_jpeg(image)},
      {"progressive", make_jpeg(image, {.kind = JpegKind::progressive, .exif = exif_block(6, true)})},
      {"cmyk", make_jpeg(image, {.kind = JpegKind::adobe_cmyk})},
      {"bmp", make_bmp(2, 2, 24, 0, "", "abcdef\0\0ghijkl\0\0"s)},
      {"runs", make_bmp(2, 6, 8, 1, std::string(12, 'p'), runs)},
      {"gif", make_gif(2, 3, "\0\1\2\3\2\1"s)},
      {"pnm", "P6\n2 2 255\nabcdefghijkl"},
      {"psd", "8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\2\0\0\0\2\0\x08\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0abcdefghijkl"s},
  };
}

TEST(Decode, PngIsExact) {
  const Image image = gradient(31, 17);
  EXPECT_EQ(decode(encode_png(image)), image);
  EXPECT_EQ(decode(encode_png(to_grey(image))), to_rgb(to_grey(image)));
}

TEST(Decode, PngKindsBecomeRgb) {
  // 16 bits are rounded: 0x80ff is nearer to 0x81 than to 0x80.
  EXPECT_EQ(decode(make_png(1, 2, 16, 0, "\0\x80\xff\xff\xff"s)).pixels, (std::vector<uint8_t>{0x80, 0x80, 0x80, 0xff, 0xff, 0xff}));
  EXPECT_EQ(decode(make_png(1, 1, 16, 0, "\0\x7f\xff"s)).pixels, (std::vector<uint8_t>(3, 0x7f)));
  EXPECT_EQ(decode(make_png(1, 4, 2, 0, "\0\x1b"s)).pixels, (std::vector<uint8_t>{0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255}));
  // Alpha is dropped and the colour below it kept, also where a chunk makes a colour transparent.
  EXPECT_EQ(decode(make_png(1, 2, 8, 6, "\0abc\0def\x80"s)).pixels, (std::vector<uint8_t>{'a', 'b', 'c', 'd', 'e', 'f'}));
  EXPECT_EQ(decode(make_png(1, 1, 8, 4, "\0a\0"s)).pixels, (std::vector<uint8_t>(3, 'a')));
  EXPECT_EQ(decode(make_png(1, 1, 8, 2, "\0abc"s, png_chunk("tRNS", "\0a\0b\0c"s))).pixels, (std::vector<uint8_t>{'a', 'b', 'c'}));
  const std::string palette = png_chunk("PLTE", "abcdef") + png_chunk("tRNS", "\0"s);
  EXPECT_EQ(decode(make_png(1, 2, 8, 3, "\0\1\0"s, palette)).pixels, (std::vector<uint8_t>{'d', 'e', 'f', 'a', 'b', 'c'}));
}

TEST(Decode, PngChecksumsCountInAncillaryChunksToo) {
  const std::string text = png_chunk("tEXt", "Title\0x"s), profile = png_chunk("iCCP", "not a profile");
  EXPECT_EQ(fault(make_png(1, 1, 8, 0, "\0a"s, text + profile)), "was decoded");
  std::string damaged = text;
  damaged[10] = 'X';
  EXPECT_NE(fault(make_png(1, 1, 8, 0, "\0a"s, damaged)).find("CRC"), std::string::npos);
}

TEST(Decode, JpegKindsBecomeRgb) {
  const Image image = gradient(40, 56);
  EXPECT_LT(difference(decode(make_jpeg(image)), image), 2.0);
  EXPECT_LT(difference(decode(make_jpeg(image, {.kind = JpegKind::progressive})), image), 2.0);
  EXPECT_LT(difference(decode(make_jpeg(image, {.kind = JpegKind::grey})), to_rgb(to_grey(image))), 2.0);
  EXPECT_LT(difference(decode(make_jpeg(image, {.kind = JpegKind::cmyk})), image), 5.0);
  EXPECT_LT(difference(decode(make_jpeg(image, {.kind = JpegKind::adobe_cmyk})), image), 5.0);
}

/// The picture as each EXIF orientation stores it: where the stored row 0 and column 0 are in the picture as seen (EXIF 2.3, 4.6.4).
Image as_stored(const Image& seen, int orientation) {
  const bool transposed = orientation >= 5;
  Image out{transposed ? seen.width : seen.height, transposed ? seen.height : seen.width, 3, {}};
  for (int64_t row = 0; row < out.height; ++row)
    for (int64_t column = 0; column < out.width; ++column) {
      // Row 0 is the top (1 2), bottom (3 4), left (5 8) or right (6 7); column 0 the left (1 4), right (2 3), top (5 6) or bottom (7 8).
      const int64_t down = transposed ? column : row, across = transposed ? row : column;
      const bool flip_down = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
      const bool flip_across = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
      const int64_t y = flip_down ? seen.height - 1 - down : down, x = flip_across ? seen.width - 1 - across : across;
      const uint8_t* p = &seen.pixels[static_cast<size_t>((y * seen.width + x) * 3)];
      out.pixels.insert(out.pixels.end(), p, p + 3);
    }
  return out;
}

TEST(Decode, AppliesExifOrientation) {
  const Image seen = gradient(24, 40);
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const Image stored = as_stored(seen, orientation);
    for (const bool big_endian : {false, true})
      EXPECT_LT(difference(decode(make_jpeg(stored, {.exif = exif_block(orientation, big_endian)})), seen), 2.0) << orientation;
    std::string rows;
    for (int64_t y = 0; y < stored.height; ++y)
      rows += '\0' + std::string(stored.pixels.begin() + y * stored.width * 3, stored.pixels.begin() + (y + 1) * stored.width * 3);
    const auto height = static_cast<uint32_t>(stored.height), width = static_cast<uint32_t>(stored.width);
    EXPECT_EQ(decode(make_png(height, width, 8, 2, rows, png_chunk("eXIf", exif_block(orientation, true)))), seen) << orientation;
  }
}

TEST(Decode, SenselessExifIsIgnored) {
  const Image image = gradient(24, 40);
  const std::string sound = exif_block(6, false);
  for (const std::string& exif : {exif_block(0, true), exif_block(9, true), "XX"s, sound.substr(0, 9), sound.substr(0, 12),
                                  "II\x2a\0\xff\xff\xff\xff\xff\xff"s, "II\x2a\0\x08\0\0\0\xff\xff"s})
    EXPECT_LT(difference(decode(make_jpeg(image, {.exif = exif})), image), 2.0);
}

TEST(Decode, BmpKinds) {
  const std::vector<uint8_t> expected{'i', 'h', 'g', 'l', 'k', 'j', 'c', 'b', 'a', 'f', 'e', 'd'};
  EXPECT_EQ(decode(make_bmp(2, 2, 24, 0, "", "abcdef\0\0ghijkl\0\0"s)).pixels, expected);
  EXPECT_EQ(decode(make_bmp(2, 2, 32, 0, "", "abc.def.ghi.jkl."s)).pixels, expected);
  EXPECT_EQ(decode(make_bmp(-2, 2, 24, 0, "", "ghijkl\0\0abcdef\0\0"s)).pixels, expected);
  EXPECT_EQ(decode(make_bmp(1, 2, 16, 0, "", "\xff\x7f\x00\x7c"s)).pixels, (std::vector<uint8_t>{255, 255, 255, 255, 0, 0}));
  EXPECT_EQ(decode(make_bmp(1, 2, 16, 3, "\0\xf8\0\0\xe0\7\0\0\x1f\0\0\0"s, "\xe0\x07\x1f\x00"s)).pixels,
            (std::vector<uint8_t>{0, 255, 0, 0, 0, 255}));
  EXPECT_EQ(decode(make_bmp(1, 3, 4, 0, "abc.def."s, "\x01\x10\0\0"s)).pixels,
            (std::vector<uint8_t>{'c', 'b', 'a', 'f', 'e', 'd', 'f', 'e', 'd'}));
  EXPECT_NE(fault(make_bmp(1, 3, 4, 0, "abc.def."s, "\x02\x10\0\0"s)).find("palette"), std::string::npos);
}

TEST(Decode, BmpRunLengths) {
  const auto indices = [](const Image& image) {
    std::vector<int> result;
    for (size_t i = 0; i < image.pixels.size(); i += 3) result.push_back(image.pixels[i]);
    return result;
  };
  std::string palette;
  for (char c = 0; c < 16; ++c) palette += std::string(3, c) + '\0';
  // Three of colour 1, three literal colours with padding, next row, one step to the right, five of colour 2, end.
  const std::string runs = "\x03\x01\x00\x03\x03\x04\x05\x00\x00\x00\x00\x02\x01\x00\x05\x02\x00\x01"s;
  EXPECT_EQ(indices(decode(make_bmp(2, 6, 8, 1, palette, runs))), (std::vector<int>{0, 2, 2, 2, 2, 2, 1, 1, 1, 3, 4, 5}));
  const std::string half_bytes = "\x03\x12\x00\x03\x34\x50\x00\x01"s;
  EXPECT_EQ(indices(decode(make_bmp(1, 6, 4, 2, palette, half_bytes))), (std::vector<int>{1, 2, 1, 3, 4, 5}));
  EXPECT_NE(fault(make_bmp(2, 6, 8, 1, palette, "\x07\x01\x00\x01"s)).find("outside"), std::string::npos);
  EXPECT_NE(fault(make_bmp(2, 6, 8, 1, palette, "\x00\x02\x00\x02\x01\x01\x00\x01"s)).find("outside"), std::string::npos);
  EXPECT_NE(fault(make_bmp(2, 6, 8, 1, palette, "\x03\x01"s)).find("ends before"), std::string::npos);
}

TEST(Decode, GifPnmAndPsd) {
  const Image gif = decode(make_gif(2, 3, "\0\1\2\3\2\1"s));
  EXPECT_EQ(to_grey(gif).pixels, (std::vector<uint8_t>{0, 85, 170, 255, 170, 85}));
  EXPECT_EQ(decode("P6 # comment\n2 1\n255\nabcdef").pixels, (std::vector<uint8_t>{'a', 'b', 'c', 'd', 'e', 'f'}));
  EXPECT_EQ(decode("P5 2 1 15 \x0f\x01"s).pixels, (std::vector<uint8_t>{255, 255, 255, 17, 17, 17}));
  EXPECT_EQ(decode("P5 1 1 65535 \x7f\xff"s).pixels, (std::vector<uint8_t>(3, 127)));
  EXPECT_EQ(decode(samples()["psd"]).pixels, (std::vector<uint8_t>{'a', 'e', 'i', 'b', 'f', 'j', 'c', 'g', 'k', 'd', 'h', 'l'}));
}

TEST(Decode, OtherFormatsAreNamed) {
  EXPECT_NE(fault("II*\0\x08\0\0\0"s).find("TIFF images are not read"), std::string::npos);
  EXPECT_NE(fault("RIFF\0\0\0\0WEBPVP8 "s).find("WebP"), std::string::npos);
  EXPECT_NE(fault("some text").find("not an image"), std::string::npos);
  EXPECT_NE(fault("").find("empty"), std::string::npos);
}

TEST(Decode, RefusesTruncationAnywhere) {
  for (const auto& [kind, whole] : samples()) {
    // What follows a GIF's first frame is not looked at, nor the padding of a BMP's last row.
    const size_t needed = whole.size() - (kind == "gif" ? 4 : kind == "bmp" ? 2 : 0);
    for (size_t n = 0; n < needed; ++n) EXPECT_NE(fault(whole.substr(0, n)), "was decoded") << kind << " of " << n << " bytes";
    EXPECT_EQ(fault(whole), "was decoded") << kind;
  }
}

TEST(Decode, SurvivesEveryChangedByte) {
  int decoded = 0, refused = 0;
  for (const auto& [kind, whole] : samples())
    for (size_t i = 0; i < whole.size(); ++i)
      for (const int change : {0x01, 0x80, 0xff}) {
        std::string changed = whole;
        changed[i] = static_cast<char>(changed[i] ^ change);
        ++(fault(changed, {.max_pixels = 1 << 20}) == "was decoded" ? decoded : refused);
      }
  EXPECT_GT(decoded, 100);
  EXPECT_GT(refused, 100);
}

TEST(Decode, RefusesBombsByTheirHeader) {
  for (const auto& [kind, bytes] : samples()) {
    const Image image = decode(bytes);
    const int64_t pixels = image.height * image.width;
    EXPECT_EQ(fault(bytes, {.max_pixels = pixels}), "was decoded") << kind;
    EXPECT_NE(fault(bytes, {.max_pixels = pixels - 1}).find("more than the limit"), std::string::npos) << kind;
    EXPECT_NE(fault(bytes, {.max_bytes = 3 * pixels - 1}).find("more than the limit"), std::string::npos) << kind;
  }
  EXPECT_NE(fault("P6 2000000000 2000000000 255 x").find("more than the limit"), std::string::npos);
  EXPECT_NE(fault("P6 8000 8000 255 x").find("ends too early"), std::string::npos);
  EXPECT_NE(fault(make_png(8000, 8000, 8, 2, "x")).find("cannot hold"), std::string::npos);
  EXPECT_NE(fault(make_bmp(8000, 8000, 24, 0, "", "x")).find("ends before"), std::string::npos);
}

}  // namespace
}  // namespace ermoe::testing
