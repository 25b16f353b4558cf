// A file on its way to being a picture: where a JPEG engine can decode it, that has begun while the thread works on another.
// What comes out is what data/decode.h says, whoever decoded it. Read next: data/sample_reader.h.
#pragma once

#include "core/jpeg_engine.h"
#include "data/decode.h"

#include <future>
#include <memory>
#include <string>
#include <string_view>

namespace ermoe {

class FileAhead {
 public:
  /// No file: nothing was begun.
  FileAhead() = default;
  /// Hands a plain JPEG within `limits` to `engine`. Any other file is left for the processor, to decode or to refuse.
  FileAhead(std::string bytes, JpegEngine& engine, DecodeLimits limits = {});

  explicit operator bool() const { return bytes_ != nullptr; }
  /// What `decode_image` gives for the file, but for rounding where the engine decoded it. Once.
  Image image(std::string_view name);
  /// What `decode_part` gives. The engine's pictures are never scaled down. Once.
  Image part(std::string_view name, const WantedPart& wanted);

 private:
  JpegPixels wait();
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(*bytes_)); }

  std::shared_ptr<const std::string> bytes_;
  DecodeLimits limits_;
  int orientation_ = 1;
  std::future<JpegPixels> pixels_;  // of no state where the processor decodes
};

}  // namespace ermoe
