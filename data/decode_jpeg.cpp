// JPEG through libjpeg-turbo. The library reports errors through a callback that must not return, so each group of its calls
// sits in a function that sets a jump target and holds no C++ object whose destructor a jump would skip.
#include "core/error.h"
#include "data/decode_formats.h"

#include <csetjmp>
#include <cstdio>
#include <cstring>

// libjpeg's header needs <cstdio> before it, and the numbers of its messages depend on the version that the header names.
#include <jpeglib.h>

#include <jerror.h>

namespace ermoe {
namespace {

// A progressive file may repeat passes over the picture at almost no cost in bytes; real encoders write about ten.
constexpr int64_t max_scans = 100;
constexpr int64_t max_scans_at_full_size = 20;
// Some cameras pad the compressed data by a few bytes; more than that means that the decoder lost its way.
constexpr int tolerated_padding = 16;
// Columns beside a part that its chroma is smoothed with.
constexpr int64_t smoothing_reach = 2;

struct ErrorManager {
  jpeg_error_mgr base;  // first, so that the library's pointer to it is a pointer to this
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

struct ScanLimit {
  jpeg_progress_mgr base;  // first, as above
  int64_t scans;
};

[[noreturn]] void stop(j_common_ptr info) { std::longjmp(reinterpret_cast<ErrorManager*>(info->err)->jump, 1); }

[[noreturn]] void on_error(j_common_ptr info) {
  info->err->format_message(info, reinterpret_cast<ErrorManager*>(info->err)->message);
  stop(info);
}

/// True in the later passes of a progressive file, which refine a picture that is already there.
bool in_detail_pass(j_common_ptr info) {
  const auto* picture = reinterpret_cast<const jpeg_decompress_struct*>(info);
  return picture->progressive_mode && picture->Ss > 0;
}

/// Warnings that mean damaged pixels are errors here; remarks about odd but readable files pass. So do detail passes that end early
/// or late while the file itself is complete: programs that thin out progressive files write them, and they cost sharpness only.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
    case JWRN_BOGUS_PROGRESSION: return;
    case JWRN_EXTRANEOUS_DATA:
      if (info->err->msg_parm.i[0] <= tolerated_padding || in_detail_pass(info)) return;
      break;
    case JWRN_HIT_MARKER:
      if (in_detail_pass(info)) return;
      break;
    default: break;
  }
  on_error(info);
}

void on_progress(j_common_ptr info) {
  const auto* limit = reinterpret_cast<const ScanLimit*>(info->progress);
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= limit->scans) return;
  std::snprintf(reinterpret_cast<ErrorManager*>(info->err)->message, JMSG_LENGTH_MAX, "it has more than %d passes over the picture",
                static_cast<int>(limit->scans));
  stop(info);
}

class JpegDecoder {
 public:
  JpegDecoder(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits)
      : bytes_(bytes), name_(name), limits_(limits) {
    info_.err = jpeg_std_error(&error_.base);
    error_.base.error_exit = on_error;
    error_.base.emit_message = on_message;
    error_.base.output_message = [](j_common_ptr) {};
    progress_.base.progress_monitor = on_progress;
  }
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;
  ~JpegDecoder() { jpeg_destroy_decompress(&info_); }

  Image decode() {
    open();
    return decode_whole();
  }

  /// Turned pictures and those in inks are rare: they are decoded whole.
  Image decode_part(const WantedPart& part) {
    open();
    if (four_inks() || stored_orientation() != 1) {
      const Image whole = decode_whole();
      return crop(whole, part.choose(whole.height, whole.width));
    }
    CropBox box = part.choose(info_.image_height, info_.image_width);
    unsigned shrink = 1;
    while (shrink < 8 && std::min(box.height, box.width) >= 2 * shrink * part.side) shrink *= 2;
    info_.scale_num = 1;
    info_.scale_denom = shrink;
    require(start());
    box = scaled(box, shrink);
    JDIMENSION first = static_cast<JDIMENSION>(std::max<int64_t>(0, box.left - smoothing_reach));
    JDIMENSION count = static_cast<JDIMENSION>(std::min<int64_t>(info_.output_width, box.left + box.width + smoothing_reach)) - first;
    require(narrow(first, count));
    image_ = {box.height, box.width, 3, std::vector<uint8_t>(static_cast<size_t>(box.height * box.width * 3))};
    row_.resize(static_cast<size_t>(count) * 3);
    require(read_box(box, (box.left - first) * 3));
    return std::move(image_);
  }

 private:
  void open() {
    require(read_header());
    const int64_t height = info_.image_height, width = info_.image_width;
    check_image_size(name_, height, width, limits_);
    progress_.scans = std::min(max_scans, std::max<int64_t>(1, max_scans_at_full_size * limits_.max_pixels / (height * width)));
    info_.out_color_space = four_inks() ? JCS_CMYK : JCS_RGB;
  }

  bool four_inks() const { return info_.jpeg_color_space == JCS_CMYK || info_.jpeg_color_space == JCS_YCCK; }

  Image decode_whole() {
    const int64_t height = info_.image_height, width = info_.image_width;
    const int orientation = stored_orientation();
    require(start());
    image_ = {height, width, 3, std::vector<uint8_t>(static_cast<size_t>(height * width * 3))};
    if (four_inks()) inks_.resize(static_cast<size_t>(width * 4));
    require(read_rows());
    return apply_orientation(std::move(image_), orientation);
  }

  /// `box` of the stored picture in the one that is `shrink` times smaller.
  CropBox scaled(const CropBox& box, int64_t shrink) const {
    const auto place = [shrink](int64_t begin, int64_t size, int64_t whole) {
      const int64_t first = std::min(begin / shrink, whole - 1);
      return std::pair(first, std::clamp<int64_t>((size + shrink / 2) / shrink, 1, whole - first));
    };
    const auto [top, height] = place(box.top, box.height, info_.output_height);
    const auto [left, width] = place(box.left, box.width, info_.output_width);
    return {top, left, height, width};
  }

  /// Leaves out columns; the library moves the edges outwards to those of its blocks.
  bool narrow(JDIMENSION& first, JDIMENSION& count) {
    if (setjmp(error_.jump)) return false;
    if (first > 0 || count < info_.output_width) jpeg_crop_scanline(&info_, &first, &count);
    return true;
  }

  /// Rows outside the box are read but not turned into pixels. The last one is: only then is the whole file known to be sound.
  bool read_box(const CropBox& box, int64_t offset) {
    if (setjmp(error_.jump)) return false;
    JSAMPROW row = row_.data();
    const auto top = static_cast<JDIMENSION>(box.top), bottom = static_cast<JDIMENSION>(box.top + box.height);
    if (top > 0) jpeg_skip_scanlines(&info_, top);
    while (info_.output_scanline < bottom) {
      uint8_t* to = image_.pixels.data() + static_cast<int64_t>(info_.output_scanline - top) * image_.width * 3;
      jpeg_read_scanlines(&info_, &row, 1);
      std::memcpy(to, row + offset, static_cast<size_t>(image_.width * 3));
    }
    if (info_.output_scanline + 1 < info_.output_height) jpeg_skip_scanlines(&info_, info_.output_height - 1 - info_.output_scanline);
    if (info_.output_scanline < info_.output_height) jpeg_read_scanlines(&info_, &row, 1);
    jpeg_finish_decompress(&info_);
    return true;
  }

  void require(bool ok) const { check_input(ok, "{}: the JPEG is damaged or of a kind not read: {}", name_, error_.message); }

  bool read_header() {
    if (setjmp(error_.jump)) return false;
    jpeg_create_decompress(&info_);
    info_.progress = &progress_.base;
    info_.mem->max_memory_to_use = static_cast<long>(limits_.max_bytes);
    jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size());
    jpeg_save_markers(&info_, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&info_, TRUE);
    return true;
  }

  bool start() {
    if (setjmp(error_.jump)) return false;
    jpeg_start_decompress(&info_);
    return true;
  }

  bool read_rows() {
    if (setjmp(error_.jump)) return false;
    while (info_.output_scanline < info_.output_height) {
      uint8_t* rgb = image_.pixels.data() + static_cast<int64_t>(info_.output_scanline) * image_.width * 3;
      JSAMPROW row = inks_.empty() ? rgb : inks_.data();
      jpeg_read_scanlines(&info_, &row, 1);
      if (!inks_.empty()) inks_to_rgb(rgb);
    }
    jpeg_finish_decompress(&info_);
    return true;
  }

  /// Ink covers light: R = (1 - C) (1 - K). Adobe's programs store the complements of the inks, and say who they are in a marker.
  void inks_to_rgb(uint8_t* rgb) const {
    const int flip = info_.saw_Adobe_marker ? 0 : 255;
    for (size_t i = 0; i < inks_.size(); i += 4) {
      const int light = inks_[i + 3] ^ flip;
      for (size_t c = 0; c < 3; ++c) *rgb++ = static_cast<uint8_t>(((inks_[i + c] ^ flip) * light + 127) / 255);
    }
  }

  int stored_orientation() const {
    constexpr std::string_view tag("Exif\0\0", 6);
    for (auto marker = info_.marker_list; marker; marker = marker->next)
      if (marker->data_length >= tag.size() && std::memcmp(marker->data, tag.data(), tag.size()) == 0)
        return exif_orientation(std::as_bytes(std::span(marker->data, marker->data_length)).subspan(tag.size()));
    return 1;
  }

  std::span<const std::byte> bytes_;
  std::string_view name_;
  DecodeLimits limits_;
  ErrorManager error_{};
  ScanLimit progress_{};
  jpeg_decompress_struct info_{};
  Image image_;
  std::vector<uint8_t> row_;   // one row of a part and what the library adds on both sides
  std::vector<uint8_t> inks_;  // one row (W, 4) of C, M, Y, K; empty where the file has none
};

}  // namespace

Image decode_jpeg(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits) {
  return JpegDecoder(bytes, name, limits).decode();
}

Image decode_jpeg_part(std::span<const std::byte> bytes, std::string_view name, const WantedPart& part, const DecodeLimits& limits) {
  return JpegDecoder(bytes, name, limits).decode_part(part);
}

}  // namespace ermoe
