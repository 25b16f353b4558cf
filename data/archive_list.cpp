#include "data/archive_list.h"

#include "core/error.h"
#include "core/file_io.h"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <map>

namespace ermoe {

namespace {

constexpr size_t most_archives = 100'000;

/// "shard-{000..010}.tar" as eleven paths; a path without braces as itself.
std::vector<std::string> expand_braces(const std::string& pattern) {
  const size_t open = pattern.find('{'), dots = pattern.find("..", open), close = pattern.find('}', open);
  if (open == std::string::npos || path_exists(pattern)) return {pattern};
  int64_t first = 0, last = 0;
  const auto number = [&](size_t from, size_t to, int64_t& value) {
    const auto [end, error] = std::from_chars(pattern.data() + from, pattern.data() + to, value);
    return error == std::errc{} && end == pattern.data() + to && value >= 0;
  };
  check_input(dots != std::string::npos && close != std::string::npos && dots < close && number(open + 1, dots, first) &&
                  number(dots + 2, close, last) && first <= last && last - first < static_cast<int64_t>(most_archives),
              "{}: a range of shards is written like shard-{{000..010}}.tar", pattern);
  std::vector<std::string> result;
  for (int64_t i = first; i <= last; ++i) {
    const std::string digits = fmt::format("{:0{}}", i, dots - open - 1);
    for (std::string& path : expand_braces(fmt::format("{}{}{}", pattern.substr(0, open), digits, pattern.substr(close + 1))))
      result.push_back(std::move(path));
    check_input(result.size() <= most_archives, "{}: more than {} shards", pattern, most_archives);
  }
  return result;
}

/// A shard stays open as long as its data set; the usual soft limit of 1,024 files is soon used up.
void allow_open_files(size_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted + 256) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, wanted + 256);
  setrlimit(RLIMIT_NOFILE, &limit);  // where it fails, opening the shards says so
}

}  // namespace

std::vector<std::string> archive_list(const std::string& list) {
  std::vector<std::string> result;
  for (size_t start = 0; start <= list.size();) {
    const size_t comma = std::min(list.find(',', start), list.size());
    if (comma > start) {
      for (std::string& path : expand_braces(list.substr(start, comma - start))) result.push_back(std::move(path));
    }
    start = comma + 1;
  }
  return result;
}

Trees open_shards(const std::vector<std::string>& paths) {
  allow_open_files(paths.size());
  Trees trees;
  for (const std::string& path : paths) {
    check_input(path_exists(path), "{}: there is no such file", path);
    check_input(is_archive_name(path), "{}: not a .tar or .tar.gz, as each of several paths must be", path);
    trees.push_back(open_archive(path));
  }
  return trees;
}

std::vector<std::string> archives_in(const FileTree& folder) {
  std::vector<std::string> archives;
  for (size_t i = 0; i < folder.paths().size(); ++i) {
    if (is_archive_name(folder.paths()[i])) archives.push_back(folder.name(i));
  }
  check_input(archives.size() <= most_archives, "{}: more than {} archives", folder.root(), most_archives);
  return archives;
}

std::string contents_of(const FileTree& tree) {
  std::map<std::string, int64_t> counts;
  for (const std::string& path : tree.paths()) ++counts[extension(path)];
  if (counts.empty()) return "no files";
  std::vector<std::pair<int64_t, std::string>> sorted;
  for (const auto& [ending, n] : counts) sorted.emplace_back(-n, ending);
  std::sort(sorted.begin(), sorted.end());
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(sorted.size(), 3); ++i) {
    if (i > 0) text += ", ";
    const std::string& ending = sorted[i].second;
    text += ending.empty() ? fmt::format("{} without an extension", -sorted[i].first)
                           : fmt::format("{} .{}", -sorted[i].first, printable(ending));
  }
  return sorted.size() > 3 ? text + ", …" : text;
}

}  // namespace ermoe
