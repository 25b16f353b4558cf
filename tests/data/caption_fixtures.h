// What tests of captions share: folders of tiny images, archives of them, and the warnings of an opening.
#pragma once

#include "data/captions.h"
#include "tests/data/fixtures.h"
#include "tests/data/tar_writer.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace ermoe::testing {

class CaptionTest : public ::testing::Test {
 protected:
  /// A file of the data set, to be written by `folder_path` or `archive_path`.
  void put(const std::string& path, const std::string& content) { files_[path] = content; }
  /// An image whose pixels have the value that `value_of` tells.
  void put_image(const std::string& path) { put(path, ppm(4, 5, value_of(path))); }
  void put_images(const std::vector<std::string>& paths) {
    for (const std::string& path : paths) put_image(path);
  }
  static uint8_t value_of(const std::string& path) {
    unsigned sum = 0;
    for (const char c : path.substr(path.rfind('/') + 1)) sum = sum * 31 + static_cast<unsigned char>(c);
    return static_cast<uint8_t>(sum);
  }

  std::string folder_path(const std::string& name = "set") {
    for (const auto& [path, content] : files_) write(scratch_.file(name + "/" + path), content);
    return scratch_.file(name);
  }
  std::string archive_path(const std::string& name = "set.tar") {
    std::string bytes;
    for (const auto& [path, content] : files_) bytes += tar_member({.name = path, .content = content});
    write(scratch_.file(name), bytes + tar_end());
    return scratch_.file(name);
  }
  void clear() { files_.clear(); }

  CaptionSplits open(const std::string& path) {
    warnings.clear();
    CaptionOptions with = options;
    with.warn = [this](const std::string& text) { warnings.push_back(text); };
    return open_captions(path, with);
  }
  std::string refused(const std::string& path) {
    return input_error([&] { open(path); });
  }
  /// Whether some warning holds all of these.
  bool warned(const std::vector<std::string>& parts) const {
    return std::ranges::any_of(warnings, [&](const std::string& text) {
      return std::ranges::all_of(parts, [&](const std::string& part) { return text.find(part) != std::string::npos; });
    });
  }
  std::string all_warnings() const {
    std::string text;
    for (const std::string& one : warnings) text += one + "\n";
    return text;
  }

  /// "a.ppm: one | two; b.ppm: three": images by the last parts of their names, with their captions. Each image is read as well.
  static std::string told(const CaptionDataset* set) {
    if (set == nullptr) return "none";
    std::string text;
    for (int64_t i = 0; i < set->size(); ++i) {
      const std::string name = set->name(i);
      const std::string leaf = name.substr(name.find_last_of("/ ") + 1);
      EXPECT_EQ(set->read(i).pixels.at(0), value_of(leaf)) << name;
      text += (i > 0 ? "; " : "") + leaf + ": ";
      const auto captions = set->captions(i);
      for (size_t k = 0; k < captions.size(); ++k) text += (k > 0 ? " | " : "") + captions[k];
    }
    return text;
  }

  CaptionOptions options;
  std::vector<std::string> warnings;

 private:
  ScratchFolder scratch_;
  std::map<std::string, std::string> files_;
};

}  // namespace ermoe::testing
