// BMP, GIF and PSD through stb_image, whose one implementation is compiled here, with nothing but these formats.
// stb_image reads zeros behind the end of a file; the reader below notices and refuses the file.
#include "core/error.h"
#include "data/decode_formats.h"

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_BMP
#define STBI_ONLY_GIF
#define STBI_ONLY_PSD
#define STBI_NO_STDIO
#define STBI_MAX_DIMENSIONS (1 << 20)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

#include <algorithm>
#include <cstring>
#include <memory>

namespace ermoe {
namespace {

/// The bytes as stb_image asks for them, with a note of whether it asked for more than there are.
struct Source {
  std::span<const std::byte> rest;
  bool ran_out = false;

  static int read(void* user, char* out, int size) {
    auto* self = static_cast<Source*>(user);
    const size_t n = std::min(self->rest.size(), static_cast<size_t>(size));
    if (n == 0) self->ran_out = true;
    std::memcpy(out, self->rest.data(), n);
    self->rest = self->rest.subspan(n);
    return static_cast<int>(n);
  }
  static void skip(void* user, int size) {
    auto* self = static_cast<Source*>(user);
    if (size < 0 || static_cast<size_t>(size) > self->rest.size()) {
      self->ran_out = true;
      self->rest = {};
      return;
    }
    self->rest = self->rest.subspan(static_cast<size_t>(size));
  }
  static int at_end(void* user) { return static_cast<Source*>(user)->rest.empty(); }
};

constexpr stbi_io_callbacks callbacks{Source::read, Source::skip, Source::at_end};

uint32_t little_endian(std::span<const std::byte> bytes, size_t offset, size_t size) {
  uint32_t value = 0;
  for (size_t i = 0; i < size; ++i) value |= std::to_integer<uint32_t>(bytes[offset + i]) << (8 * i);
  return value;
}

/// An uncompressed BMP is at least as large as its pixels: says so before they are allocated.
void check_bmp_holds(std::span<const std::byte> bytes, std::string_view name, int64_t height, int64_t width) {
  constexpr size_t file_header = 14, old_header = 12, info_header = 40;
  check_input(bytes.size() >= file_header + old_header, "{}: the BMP ends within its header", name);
  const bool old = little_endian(bytes, file_header, 4) == old_header;
  check_input(old || bytes.size() >= file_header + info_header, "{}: the BMP ends within its header", name);
  const int64_t bits = little_endian(bytes, old ? 24 : 28, 2);
  constexpr uint32_t run_lengths_8 = 1, run_lengths_4 = 2;
  const uint32_t compression = old ? 0 : little_endian(bytes, 30, 4);
  check_input(compression != run_lengths_8 && compression != run_lengths_4, "{}: run-length-coded BMP images are not read", name);
  const int64_t row = (width * bits + 7) / 8;
  check_input(row <= static_cast<int64_t>(bytes.size()) / height, "{}: the BMP is damaged: {} bytes cannot hold {} x {} pixels of {} bits",
              name, bytes.size(), width, height, bits);
}

}  // namespace

Image decode_stb(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits) {
  const ImageFormat format = image_format(bytes);
  const std::string_view kind = image_format_name(format);
  int width = 0, height = 0, stored_channels = 0;
  Source header{bytes};
  check_input(stbi_info_from_callbacks(&callbacks, &header, &width, &height, &stored_channels),
              "{}: the {} header is damaged or of a kind not read", name, kind);
  check_image_size(name, height, width, limits);
  if (format == ImageFormat::bmp) check_bmp_holds(bytes, name, height, width);

  Source source{bytes};
  const std::unique_ptr<uint8_t, decltype(&stbi_image_free)> pixels(
      stbi_load_from_callbacks(&callbacks, &source, &width, &height, &stored_channels, 3), stbi_image_free);
  check_input(!source.ran_out, "{}: the {} ends too early", name, kind);
  check_input(pixels != nullptr, "{}: the {} is damaged or of a kind not read: {}", name, kind, stbi_failure_reason());
  const int64_t size = int64_t{height} * width * 3;
  return {height, width, 3, std::vector<uint8_t>(pixels.get(), pixels.get() + size)};
}

}  // namespace ermoe
