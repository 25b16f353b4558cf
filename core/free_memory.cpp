#include "core/free_memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>

namespace ermoe {
namespace {

/// The number that follows `key` in a file of lines "key number", or the first one where `key` is empty.
std::optional<size_t> number_in(const std::string& path, const std::string& key = "") {
  std::ifstream file(path);
  std::string word;
  size_t value = 0;
  if (key.empty()) return file >> value ? std::optional(value) : std::nullopt;  // "max" is none
  while (file >> word) {
    if (word == key && file >> value) return value;
    file.clear();
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return std::nullopt;
}

/// What a control group calls its files.
struct GroupFiles {
  const char *limit, *used, *cache;  // the last is a line of memory.stat
};

/// The least that a group and those above it leave. Within a container the group's own path may not be there, but the top's files are its.
size_t left_by_groups(const std::string& top, std::string group, const GroupFiles& names) {
  size_t left = std::numeric_limits<size_t>::max();
  for (;;) {
    const std::string folder = top + group + "/";
    const auto limit = number_in(folder + names.limit), used = number_in(folder + names.used);
    if (limit && used) {
      // Cache that was not touched for a while is dropped before anything is refused.
      const size_t kept = *used - std::min(*used, number_in(folder + "memory.stat", names.cache).value_or(0));
      left = std::min(left, *limit - std::min(*limit, kept));
    }
    if (group.empty()) return left;
    group.resize(group.rfind('/'));
  }
}

}  // namespace

size_t free_memory(const std::string& root) {
  const auto kib = number_in(root + "/proc/meminfo", "MemAvailable:");
  size_t left = kib ? 1024 * *kib : static_cast<size_t>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "number:controllers:/path"
    const size_t path = line.find(":/");
    if (path == std::string::npos) continue;
    std::string group = line.substr(path + 1);
    if (group == "/") group.clear();
    if (line.starts_with("0::"))
      left = std::min(left, left_by_groups(root + "/sys/fs/cgroup", group, {"memory.max", "memory.current", "inactive_file"}));
    else if (line.find(":memory:") != std::string::npos)
      left = std::min(left, left_by_groups(root + "/sys/fs/cgroup/memory", group,
                                           {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}));
  }
  return left;
}

}  // namespace ermoe
