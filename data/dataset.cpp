// Finds out what lies at a path and hands it to its source. Read data/dataset.h first, then data/sources.h.
#include "data/dataset.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/sources.h"
#include "data/subset.h"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>

namespace ermoe {

namespace fs = std::filesystem;

namespace {

constexpr const char* accepted =
    "accepted are a folder of IDX pairs (train-images-idx3-ubyte[.gz], …) or CIFAR binaries, class folders "
    "(train/<class>/…, val/<class>/…) in a folder, .tar or .tar.gz, webdataset shards (.tar), a .csv or .tsv of path,label, a CIFAR .bin, "
    "and synthetic";
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

/// "a.tar,b.tar" as two paths, each with its braces expanded.
std::vector<std::string> split_list(const std::string& list) {
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

/// A shard stays open as long as its data set; the usual soft limit of 1,024 files is soon used up.
void allow_open_files(size_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted + 256) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, wanted + 256);
  setrlimit(RLIMIT_NOFILE, &limit);  // where it fails, opening the shards says so
}

DatasetSplits open_archives(const std::string& source, const std::vector<std::string>& paths, const WarnFn& warn) {
  allow_open_files(paths.size());
  Trees trees;
  for (const std::string& path : paths) {
    check_input(path_exists(path), "{}: there is no such file", path);
    check_input(is_archive_name(path), "{}: not a .tar or .tar.gz, as each of several paths must be", path);
    trees.push_back(open_archive(path));
  }
  if (trees.size() == 1 && has_cifar(*trees[0])) return open_cifar(*trees[0], warn);
  if (is_webdataset(*trees[0])) return open_webdataset(source, trees, warn);
  return open_class_folders(source, trees, warn);
}

/// "3 .txt, 1 .json": what a folder or archive that is no data set holds.
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

DatasetSplits open_folder_dataset(const std::string& path, const WarnFn& warn) {
  const auto tree = open_folder(path);
  if (has_idx(*tree)) return open_idx(*tree);
  if (has_cifar(*tree)) return open_cifar(*tree, warn);
  DatasetSplits splits = open_class_folders(path, {tree}, warn);
  if (splits.train || splits.test) return splits;
  std::vector<std::string> archives;
  for (size_t i = 0; i < tree->paths().size(); ++i) {
    if (is_archive_name(tree->paths()[i])) archives.push_back(tree->name(i));
  }
  check_input(archives.size() <= most_archives, "{}: more than {} archives", path, most_archives);
  if (!archives.empty()) splits = open_archives(path, archives, warn);
  check_input(splits.train || splits.test, "{}: a folder with {}, but no data set; {}", path, contents_of(*tree), accepted);
  return splits;
}

DatasetSplits open_file_dataset(const std::string& path, const WarnFn& warn) {
  const std::string ending = extension(path);
  if (ending == "csv" || ending == "tsv") return open_csv(path, warn);
  if (ending == "bin") return open_cifar_file(path);
  check_input(is_archive_name(path), "{}: a file that is no data set; {}", path, accepted);
  DatasetSplits splits = open_archives(path, {path}, warn);
  if (!splits.train && !splits.test)
    fail_input("{}: an archive with {}, but no data set; {}", path, contents_of(*open_archive(path)), accepted);
  return splits;
}

DatasetSplits open_what_lies_at(const std::string& path, const WarnFn& warn) {
  check_input(!path.empty(), "data.path: no data set is named; {}", accepted);
  if (is_synthetic(path)) return open_synthetic(path);
  std::error_code error;
  if (fs::is_directory(path, error)) return open_folder_dataset(path, warn);
  if (fs::exists(path, error)) return open_file_dataset(path, warn);
  const std::vector<std::string> several = split_list(path);
  check_input(several.size() > 1, "{}: there is no such file or folder; {}", path, accepted);
  DatasetSplits splits = open_archives(path, several, warn);
  check_input(splits.train || splits.test, "{}: archives, but no data set; {}", path, accepted);
  return splits;
}

}  // namespace

DatasetSplits open_dataset(const std::string& path, const DatasetOptions& options) {
  DatasetSplits splits = open_what_lies_at(path, options.warn);
  if (splits.test || !splits.train) return splits;
  if (options.holdout <= 0) {
    warn_with(options.warn, fmt::format("{}: has no part to evaluate on; set a share to hold out of the training images", path));
    return splits;
  }
  const std::shared_ptr<const ImageDataset> whole = std::move(splits.train);
  IndexSplit split = holdout_indices(*whole, options.holdout, options.seed);
  check_input(!split.held_out.empty(), "{}: every class has a single image, so none can be held out", path);
  splits.train = subset(whole, std::move(split.kept));
  splits.test = subset(whole, std::move(split.held_out));
  return splits;
}

}  // namespace ermoe
