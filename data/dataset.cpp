// Finds out what lies at a path and hands it to its source. Read data/dataset.h first, then data/sources.h.
#include "data/dataset.h"

#include "core/error.h"
#include "data/archive_list.h"
#include "data/sources.h"
#include "data/subset.h"

#include <filesystem>

namespace ermoe {

namespace fs = std::filesystem;

namespace {

constexpr const char* accepted =
    "accepted are a folder of IDX pairs (train-images-idx3-ubyte[.gz], …) or CIFAR binaries, class folders "
    "(train/<class>/…, val/<class>/…) in a folder, .tar or .tar.gz, webdataset shards (.tar), a .csv or .tsv of path,label, a CIFAR .bin, "
    "and synthetic";

DatasetSplits open_archives(const std::string& source, const std::vector<std::string>& paths, const WarnFn& warn) {
  const Trees trees = open_shards(paths);
  if (trees.size() == 1 && has_cifar(*trees[0])) return open_cifar(*trees[0], warn);
  if (is_webdataset(*trees[0])) return open_webdataset(source, trees, warn);
  return open_class_folders(source, trees, warn);
}

DatasetSplits open_folder_dataset(const std::string& path, const WarnFn& warn) {
  const auto tree = open_folder(path);
  if (has_idx(*tree)) return open_idx(*tree);
  if (has_cifar(*tree)) return open_cifar(*tree, warn);
  DatasetSplits splits = open_class_folders(path, {tree}, warn);
  if (splits.train || splits.test) return splits;
  const std::vector<std::string> archives = archives_in(*tree);
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
  const std::vector<std::string> several = archive_list(path);
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
