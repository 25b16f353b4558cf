// What the tests of data sets share: a data set in memory with chosen faults, and small image files. Archives are made by
// tests/data/tar_writer.h.
#pragma once

#include "core/error.h"
#include "data/dataset.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <vector>

namespace ermoe::testing {

/// n images of side x side x channels whose pixels all hold their sample's number; samples in `broken` throw.
class CountingDataset final : public ImageDataset {
 public:
  CountingDataset(int64_t n, int64_t side, int64_t channels, std::set<int64_t> broken = {})
      : n_(n), side_(side), channels_(channels), broken_(std::move(broken)) {}

  int64_t size() const override { return n_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  int32_t label(int64_t i) const override { return static_cast<int32_t>(i % 3); }
  std::string name(int64_t i) const override { return "sample" + std::to_string(i); }
  Image read(int64_t i) const override {
    if (on_read) on_read(i);
    check_input(!broken_.contains(i), "{}: broken", name(i));
    return {side_, side_, channels_, std::vector<uint8_t>(static_cast<size_t>(side_ * side_ * channels_), static_cast<uint8_t>(i))};
  }

  std::function<void(int64_t)> on_read;

 private:
  int64_t n_, side_, channels_;
  std::set<int64_t> broken_;
  std::vector<std::string> names_ = {"a", "b", "c"};
};

/// Writes a file, making the folders above it.
inline void write(const std::string& path, std::string_view content) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream file(path, std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  ASSERT_TRUE(file.good()) << path;
}

/// A binary PPM of one colour: the smallest image file that can be written by hand.
inline std::string ppm(int64_t height, int64_t width, uint8_t value) {
  return "P6\n" + std::to_string(width) + " " + std::to_string(height) + "\n255\n" +
         std::string(static_cast<size_t>(3 * height * width), static_cast<char>(value));
}

/// The message of the InputError that `run` throws, or "" (and a failure) where it throws none.
inline std::string input_error(const std::function<void()>& run) {
  try {
    run();
  } catch (const InputError& error) {
    return error.what();
  }
  ADD_FAILURE() << "no InputError was thrown";
  return "";
}

}  // namespace ermoe::testing
