#include "core/log.h"

namespace ermoe {

void Logger::print(const std::string& line) {
  const std::string text = line + "\n";
  const std::lock_guard lock(mutex_);
  std::fwrite(text.data(), 1, text.size(), to_);  // in one call, so that the lines of several processes do not mix
  std::fflush(to_);
}

void Logger::warn(const std::string& text) {
  size_t distinct = 0;
  {
    const std::lock_guard lock(mutex_);
    if (warned_.size() > max_warnings || !warned_.insert(text).second) return;
    distinct = warned_.size();
  }
  const std::string start = rank_ == 0 ? "warning: " : fmt::format("warning: rank {}: ", rank_);
  print(start + (distinct <= max_warnings ? text : fmt::format("more than {} different warnings; the rest is not shown", max_warnings)));
}

}  // namespace ermoe
