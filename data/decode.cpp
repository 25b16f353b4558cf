// Chooses the decoder by the file's first bytes. See data/decode.h.
#include "data/decode.h"

#include "core/error.h"
#include "data/decode_formats.h"

#include <cstring>

namespace ermoe {
namespace {

struct Signature {
  ImageFormat format;
  size_t offset;
  std::string_view bytes;
};

using namespace std::string_view_literals;

constexpr Signature signatures[] = {
    {ImageFormat::jpeg, 0, "\xff\xd8\xff"sv},
    {ImageFormat::png, 0, "\x89PNG\r\n\x1a\n"sv},
    {ImageFormat::gif, 0, "GIF87a"sv},
    {ImageFormat::gif, 0, "GIF89a"sv},
    {ImageFormat::bmp, 0, "BM"sv},
    {ImageFormat::pnm, 0, "P5"sv},
    {ImageFormat::pnm, 0, "P6"sv},
    {ImageFormat::psd, 0, "8BPS\0\1"sv},
    {ImageFormat::tiff, 0, "II*\0"sv},
    {ImageFormat::tiff, 0, "MM\0*"sv},
    {ImageFormat::tiff, 0, "II+\0"sv},
    {ImageFormat::tiff, 0, "MM\0+"sv},
    {ImageFormat::webp, 8, "WEBP"sv},
    {ImageFormat::heif, 4, "ftyp"sv},
    {ImageFormat::jpeg2000, 0, "\0\0\0\x0cjP  \r\n"sv},
    {ImageFormat::jpeg2000, 0, "\xff\x4f\xff\x51"sv},
    {ImageFormat::jpeg_xl, 0, "\xff\x0a"sv},
    {ImageFormat::jpeg_xl, 0, "\0\0\0\x0cJXL \r\n"sv},
};

}  // namespace

ImageFormat image_format(std::span<const std::byte> bytes) {
  for (const Signature& s : signatures)
    if (bytes.size() >= s.offset + s.bytes.size() && std::memcmp(bytes.data() + s.offset, s.bytes.data(), s.bytes.size()) == 0)
      return s.format;
  return ImageFormat::unknown;
}

std::string_view image_format_name(ImageFormat format) {
  switch (format) {
    case ImageFormat::jpeg: return "JPEG";
    case ImageFormat::png: return "PNG";
    case ImageFormat::bmp: return "BMP";
    case ImageFormat::gif: return "GIF";
    case ImageFormat::pnm: return "PNM";
    case ImageFormat::psd: return "PSD";
    case ImageFormat::tiff: return "TIFF";
    case ImageFormat::webp: return "WebP";
    case ImageFormat::heif: return "HEIF or AVIF";
    case ImageFormat::jpeg2000: return "JPEG 2000";
    case ImageFormat::jpeg_xl: return "JPEG XL";
    case ImageFormat::unknown: break;
  }
  return "unknown";
}

Image decode_image(std::span<const std::byte> bytes, std::string_view name, DecodeLimits limits) {
  check_input(!bytes.empty(), "{}: the file is empty", name);
  const ImageFormat format = image_format(bytes);
  switch (format) {
    case ImageFormat::jpeg: return decode_jpeg(bytes, name, limits);
    case ImageFormat::png: return decode_png(bytes, name, limits);
    case ImageFormat::pnm: return decode_pnm(bytes, name, limits);
    case ImageFormat::bmp: return decode_bmp(bytes, name, limits);
    case ImageFormat::gif:
    case ImageFormat::psd: return decode_stb(bytes, name, limits);
    case ImageFormat::unknown: fail_input("{}: not an image of a known format (JPEG, PNG, BMP, GIF, PNM and PSD are read)", name);
    default: fail_input("{}: {} images are not read; convert the file to PNG or JPEG", name, image_format_name(format));
  }
}

Image decode_part(std::span<const std::byte> bytes, std::string_view name, const WantedPart& part, DecodeLimits limits) {
  if (image_format(bytes) == ImageFormat::jpeg) return decode_jpeg_part(bytes, name, part, limits);
  const Image whole = decode_image(bytes, name, limits);
  return crop(whole, part.choose(whole.height, whole.width));
}

void check_image_size(std::string_view name, int64_t height, int64_t width, const DecodeLimits& limits) {
  check_input(height > 0 && width > 0, "{}: the image is {} x {} pixels, which is no image", name, width, height);
  // By division, since the product of two hostile sizes overflows.
  const int64_t most = std::min(limits.max_pixels, limits.max_bytes / 3);
  check_input(height <= most / width, "{}: the image is {} x {} pixels, more than the limit of {} pixels", name, width, height, most);
}

}  // namespace ermoe
