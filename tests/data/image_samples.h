// Makes small image files of every format for tests, apart from PNG, which the project writes itself.
#pragma once

#include "data/image.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

// libjpeg's header needs <cstdio> before it.
#include <jpeglib.h>

namespace ermoe::testing {

/// A picture without symmetry, smooth enough for JPEG: red grows to the right, green downwards, blue is a corner's mark.
inline Image gradient(int64_t height, int64_t width) {
  Image image{height, width, 3, {}};
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x)
      for (const int64_t v : {255 * x / width, 255 * y / height, int64_t{x < width / 2 && y < height / 2 ? 200 : 20}})
        image.pixels.push_back(static_cast<uint8_t>(v));
  return image;
}

inline std::string little_endian(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}

enum class JpegKind { colour, progressive, grey, rgb, cmyk, adobe_cmyk };

struct JpegOptions {
  JpegKind kind = JpegKind::colour;
  std::string exif = {};     // the block from its TIFF header on; none where empty
  int across = 1, down = 1;  // samples of luma to one of chroma
  unsigned restart = 0;      // blocks of all colours between two restart markers; 0: none
};

/// An EXIF block with nothing but the orientation.
inline std::string exif_block(int orientation, bool big_endian) {
  std::string block = big_endian ? std::string("MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0", 26)
                                 : std::string("II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0\0\0\0\0", 26);
  block[big_endian ? 19 : 18] = static_cast<char>(orientation);
  return block;
}

/// Quality 95. For CMYK kinds, inks that show the picture: K = 1 - max(R, G, B), C = (1 - R - K) / (1 - K).
inline std::string make_jpeg(const Image& image, const JpegOptions& options = {}) {
  const bool inks = options.kind == JpegKind::cmyk || options.kind == JpegKind::adobe_cmyk;
  jpeg_compress_struct info{};
  jpeg_error_mgr error{};
  info.err = jpeg_std_error(&error);
  jpeg_create_compress(&info);
  unsigned char* buffer = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &buffer, &size);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.input_components = inks ? 4 : 3;
  info.in_color_space = inks ? JCS_CMYK : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 95, TRUE);
  if (options.kind == JpegKind::grey) jpeg_set_colorspace(&info, JCS_GRAYSCALE);
  if (options.kind == JpegKind::rgb) jpeg_set_colorspace(&info, JCS_RGB);
  if (options.kind == JpegKind::progressive) jpeg_simple_progression(&info);
  for (int c = 0; c < info.num_components; ++c) info.comp_info[c].h_samp_factor = info.comp_info[c].v_samp_factor = 1;
  info.comp_info[0].h_samp_factor = options.across;
  info.comp_info[0].v_samp_factor = options.down;
  info.restart_interval = options.restart;
  if (options.kind == JpegKind::cmyk || options.kind == JpegKind::adobe_cmyk)
    info.write_Adobe_marker = options.kind == JpegKind::adobe_cmyk;
  jpeg_start_compress(&info, TRUE);
  if (!options.exif.empty()) {
    const std::string marker = std::string("Exif\0\0", 6) + options.exif;
    jpeg_write_marker(&info, JPEG_APP0 + 1, reinterpret_cast<const JOCTET*>(marker.data()), static_cast<unsigned>(marker.size()));
  }
  std::vector<uint8_t> row;
  for (int64_t y = 0; y < image.height; ++y) {
    row.clear();
    for (int64_t x = 0; x < image.width; ++x) {
      const uint8_t* p = &image.pixels[static_cast<size_t>((y * image.width + x) * 3)];
      const int light = std::max({p[0], p[1], p[2], uint8_t{1}});
      for (int c = 0; c < 3; ++c) row.push_back(inks ? static_cast<uint8_t>(255 - p[c] * 255 / light) : p[c]);
      if (inks) row.push_back(static_cast<uint8_t>(255 - light));
    }
    if (options.kind == JpegKind::adobe_cmyk)
      for (uint8_t& v : row) v = static_cast<uint8_t>(255 - v);
    JSAMPROW pointer = row.data();
    jpeg_write_scanlines(&info, &pointer, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::string out(reinterpret_cast<const char*>(buffer), size);
  std::free(buffer);
  return out;
}

/// A BMP with the info header of 40 bytes around ready rows or runs.
inline std::string make_bmp(int64_t height, int64_t width, int bits, int coding, const std::string& palette, const std::string& rows) {
  const size_t offset = 54 + palette.size();
  return "BM" + little_endian(offset + rows.size(), 4) + little_endian(0, 4) + little_endian(offset, 4) + little_endian(40, 4) +
         little_endian(static_cast<uint64_t>(width), 4) + little_endian(static_cast<uint64_t>(height), 4) + little_endian(1, 2) +
         little_endian(static_cast<uint64_t>(bits), 2) + little_endian(static_cast<uint64_t>(coding), 4) + little_endian(rows.size(), 4) +
         std::string(16, '\0') + palette + rows;
}

/// A grey GIF of 4 colours, 0 85 170 255; pixels (H W) are their indices. Two pixels after each clear code keep all codes at 3 bits.
inline std::string make_gif(int64_t height, int64_t width, const std::string& indices) {
  std::string out = std::string("GIF89a") + little_endian(static_cast<uint64_t>(width), 2) +
                    little_endian(static_cast<uint64_t>(height), 2) + "\x91" + std::string(2, '\0');
  for (const int level : {0, 85, 170, 255}) out += std::string(3, static_cast<char>(level));
  out += std::string(",\0\0\0\0", 5) + little_endian(static_cast<uint64_t>(width), 2) + little_endian(static_cast<uint64_t>(height), 2) +
         std::string(1, '\0') + "\x02";
  constexpr int clear = 4, end = 5;
  std::vector<int> codes;
  for (size_t i = 0; i < indices.size(); ++i) {
    if (i % 2 == 0) codes.push_back(clear);
    codes.push_back(indices[i]);
  }
  codes.push_back(end);
  std::string data;
  uint32_t held = 0;
  int bits = 0;
  for (const int code : codes) {
    held |= static_cast<uint32_t>(code) << bits;
    for (bits += 3; bits >= 8; bits -= 8, held >>= 8) data += static_cast<char>(held);
  }
  data += static_cast<char>(held);
  EXPECT_LT(data.size(), 256u);
  return out + static_cast<char>(data.size()) + data + std::string(1, '\0') + ";";
}

}  // namespace ermoe::testing
