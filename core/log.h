// What a program says besides its results: one line each, on stderr. A Logger is made by `main` and passed to whoever has something to
// say; there is no global one. Many ranks speak with one voice: rank 0 alone informs, and a warning of another rank names it.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <mutex>
#include <set>
#include <string>
#include <utility>

namespace ermoe {

/// Thread-safe.
class Logger {
 public:
  /// Distinct warnings that are printed; after that one line says that more are kept back.
  static constexpr size_t max_warnings = 100;

  explicit Logger(int rank = 0, std::FILE* to = stderr) : rank_(rank), to_(to) {}

  /// A line from rank 0; nothing from the others.
  template <typename... Args>
  void info(fmt::format_string<Args...> message, Args&&... args) {
    if (rank_ == 0) print(fmt::format(message, std::forward<Args>(args)...));
  }

  /// A line that starts with "warning: ", from any rank. The same text is printed once.
  template <typename... Args>
  void warning(fmt::format_string<Args...> message, Args&&... args) {
    warn(fmt::format(message, std::forward<Args>(args)...));
  }

 private:
  void print(const std::string& line);
  void warn(const std::string& text);

  int rank_;
  std::FILE* to_;
  std::mutex mutex_;
  std::set<std::string> warned_;
};

}  // namespace ermoe
