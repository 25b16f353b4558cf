// PNG through libpng. As with JPEG, the library leaves by a jump on errors, so its calls sit in functions without C++ objects.
// Ancillary chunks that training does not use (texts, profiles) are skipped unread, but their checksums still count.
#include "core/error.h"
#include "data/decode_formats.h"

#include <png.h>

#include <cstdio>
#include <cstring>

namespace ermoe {
namespace {

// The most that deflate can shrink anything.
constexpr int64_t max_deflate_ratio = 1032;

class PngDecoder {
 public:
  PngDecoder(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits)
      : rest_(bytes), file_size_(static_cast<int64_t>(bytes.size())), name_(name), limits_(limits) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    if (png_) info_ = png_create_info_struct(png_);
    check(info_ != nullptr, "[decode_png] libpng could not be set up");
  }
  PngDecoder(const PngDecoder&) = delete;
  PngDecoder& operator=(const PngDecoder&) = delete;
  ~PngDecoder() { png_destroy_read_struct(&png_, &info_, nullptr); }

  Image decode() {
    require(read_header());
    const int64_t height = png_get_image_height(png_, info_), width = png_get_image_width(png_, info_);
    check_image_size(name_, height, width, limits_);
    const int64_t bits = int64_t{png_get_bit_depth(png_, info_)} * png_get_channels(png_, info_);
    check_input(width * bits / 8 * height <= file_size_ * max_deflate_ratio,
                "{}: the PNG is damaged: {} bytes cannot hold the {} x {} pixels that its header promises", name_, file_size_, width,
                height);
    require(set_up_rows());
    check(static_cast<int64_t>(png_get_rowbytes(png_, info_)) == width * 3, "[decode_png] libpng gives rows of {} bytes for width {}",
          png_get_rowbytes(png_, info_), width);
    image_ = {height, width, 3, std::vector<uint8_t>(static_cast<size_t>(height * width * 3))};
    for (int64_t y = 0; y < height; ++y) rows_.push_back(image_.pixels.data() + y * width * 3);
    require(read_rows());
    return apply_orientation(std::move(image_), stored_orientation());
  }

 private:
  void require(bool ok) const { check_input(ok, "{}: the PNG is damaged: {}", name_, message_); }

  [[noreturn]] static void on_error(png_structp png, png_const_charp text) {
    auto* self = static_cast<PngDecoder*>(png_get_error_ptr(png));
    std::snprintf(self->message_, sizeof self->message_, "%s", text);
    png_longjmp(png, 1);
  }

  /// libpng only warns where the compressed pixels are followed by a wrong checksum; for us those pixels are damaged.
  static void on_warning(png_structp png, png_const_charp text) {
    if (std::strncmp(text, "IDAT: ", 6) == 0) on_error(png, text);
  }

  static void on_read(png_structp png, png_bytep out, size_t size) {
    auto* self = static_cast<PngDecoder*>(png_get_io_ptr(png));
    if (size > self->rest_.size()) png_error(png, "the file ends too early");
    std::memcpy(out, self->rest_.data(), size);
    self->rest_ = self->rest_.subspan(size);
  }

  bool read_header() {
    static const unsigned char skipped[] = "iCCP\0iTXt\0tEXt\0zTXt\0sPLT\0hIST\0pCAL\0sCAL\0tIME\0pHYs\0oFFs\0bKGD\0cHRM\0gAMA\0sRGB\0sBIT";
    if (setjmp(png_jmpbuf(png_))) return false;
    png_set_read_fn(png_, this, on_read);
    png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, skipped, sizeof skipped / 5);
    png_read_info(png_, info_);
    return true;
  }

  /// Whatever is stored comes out as rows of 8-bit R, G, B.
  bool set_up_rows() {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_set_expand(png_);
    png_set_scale_16(png_);
    png_set_strip_alpha(png_);
    png_set_gray_to_rgb(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  bool read_rows() {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_read_image(png_, rows_.data());
    png_read_end(png_, info_);
    return true;
  }

  int stored_orientation() const {
    png_uint_32 size = 0;
    png_bytep exif = nullptr;
    if (!png_get_eXIf_1(png_, info_, &size, &exif)) return 1;
    return exif_orientation(std::as_bytes(std::span(exif, size)));
  }

  std::span<const std::byte> rest_;
  int64_t file_size_;
  std::string_view name_;
  DecodeLimits limits_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  char message_[256] = "";
  Image image_;
  std::vector<png_bytep> rows_;  // (H), each a row of image_
};

}  // namespace

Image decode_png(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits) {
  return PngDecoder(bytes, name, limits).decode();
}

}  // namespace ermoe
