// GIF and PSD through stb_image, whose one implementation is compiled here, with nothing but these formats.
// stb_image reads zeros behind the end of a file; the reader below notices and refuses the file.
#include "core/error.h"
#include "data/decode_formats.h"

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
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
    if (n == 0) {
      self->ran_out = true;
      return 0;
    }
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

}  // namespace

Image decode_stb(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits) {
  const ImageFormat format = image_format(bytes);
  const std::string_view kind = image_format_name(format);
  int width = 0, height = 0, stored_channels = 0;
  Source header{bytes};
  check_input(stbi_info_from_callbacks(&callbacks, &header, &width, &height, &stored_channels),
              "{}: the {} header is damaged or of a kind not read", name, kind);
  check_image_size(name, height, width, limits);

  Source source{bytes};
  const std::unique_ptr<uint8_t, decltype(&stbi_image_free)> pixels(
      stbi_load_from_callbacks(&callbacks, &source, &width, &height, &stored_channels, 3), stbi_image_free);
  check_input(!source.ran_out, "{}: the {} ends too early", name, kind);
  check_input(pixels != nullptr, "{}: the {} is damaged or of a kind not read: {}", name, kind, stbi_failure_reason());
  const int64_t size = int64_t{height} * width * 3;
  return {height, width, 3, std::vector<uint8_t>(pixels.get(), pixels.get() + size)};
}

}  // namespace ermoe
