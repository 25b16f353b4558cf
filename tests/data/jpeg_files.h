// A data set of image files in memory, and a JPEG engine that does what a test tells it.
#pragma once

#include "core/jpeg_engine.h"
#include "data/dataset.h"

#include <atomic>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace ermoe::testing {

inline std::span<const std::byte> bytes_in(const std::string& file) { return std::as_bytes(std::span(file)); }

class FilesInMemory final : public ImageDataset {
 public:
  explicit FilesInMemory(std::vector<std::string> files) : files_(std::move(files)) {}

  int64_t size() const override { return std::ssize(files_); }
  const std::vector<std::string>& class_names() const override { return names_; }
  int32_t label(int64_t) const override { return 0; }
  std::string name(int64_t i) const override { return "file" + std::to_string(i); }
  Image read(int64_t i) const override { return decode_image(bytes_in(at(i)), name(i)); }
  Image read_part(int64_t i, const WantedPart& part) const override { return decode_part(bytes_in(at(i)), name(i), part); }
  std::optional<std::string> file(int64_t i) const override { return at(i); }

 private:
  const std::string& at(int64_t i) const { return files_.at(static_cast<size_t>(i)); }

  std::vector<std::string> files_;
  std::vector<std::string> names_ = {"all"};
};

/// Answers when it is asked for the answer, with what `decode` makes of the file; an image without pixels is none.
class ToldEngine final : public JpegEngine {
 public:
  explicit ToldEngine(std::function<Image(const std::string& file)> decode) : decode_(std::move(decode)) {}

  std::future<JpegPixels> start(std::shared_ptr<const std::string> file, int64_t height, int64_t width) override {
    ++asked;
    return std::async(std::launch::deferred, [this, file, height, width] {
      int64_t none = 0;
      asked_at_first_answer.compare_exchange_strong(none, asked);
      const Image made = decode_(*file);
      if (made.pixels.empty()) return JpegPixels{};
      const auto pixels = std::make_shared<std::vector<uint8_t>>(made.pixels);
      return JpegPixels{height, width, {pixels, pixels->data()}};
    });
  }
  std::string take_fault() override { return std::exchange(fault, {}); }
  std::string name() const override { return "told"; }

  std::atomic<int64_t> asked = 0, asked_at_first_answer = 0;
  std::string fault;

 private:
  std::function<Image(const std::string&)> decode_;
};

}  // namespace ermoe::testing
