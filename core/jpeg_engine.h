// JPEG files decoded by something else than the processor's cores: data/ asks, and cuda/ answers where a GPU has engines for it.
// It stands here because the two know core alone. Read next: data/decode_ahead.h, cuda/runtime/jpeg_engine.cpp.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <string>

namespace ermoe {

/// A picture as its file stores it, before EXIF turns it.
struct JpegPixels {
  int64_t height = 0;
  int64_t width = 0;
  std::shared_ptr<const uint8_t> rgb;  // (height, width, 3); null: the engine did not decode the file
};

/// Decodes while those who asked do something else. Every function may be called from several threads at once.
class JpegEngine {
 public:
  virtual ~JpegEngine() = default;
  /// Begins to decode a file that `find_plain_jpeg` (data/plain_jpeg.h) found sound and of (height, width). The answer always
  /// comes, at the latest when the engine goes, and is no exception: without pixels the processor has to do it. Pixels may
  /// outlive the engine. Those who wait are served in the order in which they asked, and memory for pixels is bounded: nobody
  /// may hold those of a file while he waits for one that he asked for later.
  virtual std::future<JpegPixels> start(std::shared_ptr<const std::string> file, int64_t height, int64_t width) = 0;
  /// Why the engine gave up and decodes nothing any more, told once; else empty.
  virtual std::string take_fault() = 0;
  /// "nvJPEG, 7 engines"
  virtual std::string name() const = 0;
};

}  // namespace ermoe
