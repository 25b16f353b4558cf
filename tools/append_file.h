// A log on disk: every line is in the file as soon as `append` returns, whatever happens to the program afterwards.
#pragma once

#include "core/file_io.h"

#include <string>
#include <string_view>

namespace ermoe {

class AppendFile {
 public:
  AppendFile() = default;
  /// Opens for appending, creating the file where needed. Throws InputError where that is impossible.
  explicit AppendFile(std::string path);

  /// Throws Error with the system's reason (disk full).
  void append(std::string_view bytes);

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  Descriptor file_;
};

}  // namespace ermoe
