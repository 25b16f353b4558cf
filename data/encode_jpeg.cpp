// JPEG through libjpeg-turbo. As in data/decode_jpeg.cpp, errors jump past a function that holds no C++ object.
#include "data/encode_jpeg.h"

#include "core/error.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>

// libjpeg's header needs <cstdio> before it.
#include <jpeglib.h>

namespace ermoe {
namespace {

struct ErrorManager {
  jpeg_error_mgr base;  // first, so that the library's pointer to it is a pointer to this
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void on_error(j_common_ptr info) {
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  info->err->format_message(info, manager->message);
  std::longjmp(manager->jump, 1);
}

class JpegEncoder {
 public:
  JpegEncoder() {
    info_.err = jpeg_std_error(&error_.base);
    error_.base.error_exit = on_error;
    error_.base.output_message = [](j_common_ptr) {};
  }
  JpegEncoder(const JpegEncoder&) = delete;
  JpegEncoder& operator=(const JpegEncoder&) = delete;
  ~JpegEncoder() {
    jpeg_destroy_compress(&info_);
    std::free(buffer_);
  }

  std::string encode(const Image& image, int quality) {
    check(write(image, quality), "[encode_jpeg] libjpeg says: {}", error_.message);
    return {reinterpret_cast<const char*>(buffer_), size_};
  }

 private:
  bool write(const Image& image, int quality) {
    if (setjmp(error_.jump)) return false;
    jpeg_create_compress(&info_);
    jpeg_mem_dest(&info_, &buffer_, &size_);
    info_.image_height = static_cast<JDIMENSION>(image.height);
    info_.image_width = static_cast<JDIMENSION>(image.width);
    info_.input_components = static_cast<int>(image.channels);
    info_.in_color_space = image.channels == 3 ? JCS_RGB : JCS_GRAYSCALE;
    jpeg_set_defaults(&info_);
    jpeg_set_quality(&info_, quality, TRUE);
    jpeg_start_compress(&info_, TRUE);
    while (info_.next_scanline < info_.image_height) {
      // The library's interface lacks a const; it only reads.
      auto* row = const_cast<JSAMPLE*>(image.pixels.data() + static_cast<int64_t>(info_.next_scanline) * image.width * image.channels);
      jpeg_write_scanlines(&info_, &row, 1);
    }
    jpeg_finish_compress(&info_);
    return true;
  }

  ErrorManager error_{};
  jpeg_compress_struct info_{};
  unsigned char* buffer_ = nullptr;
  unsigned long size_ = 0;
};

}  // namespace

std::string encode_jpeg(const Image& image, int quality) {
  const bool sound = image.height > 0 && image.width > 0 && (image.channels == 1 || image.channels == 3) &&
                     static_cast<int64_t>(image.pixels.size()) == image.height * image.width * image.channels;
  check(sound && image.height <= 65500 && image.width <= 65500, "[encode_jpeg] an image ({}, {}, {}) with {} samples", image.height,
        image.width, image.channels, image.pixels.size());
  return JpegEncoder().encode(image, quality);
}

}  // namespace ermoe
