// The kinds of data sets that `open_dataset` knows, a test and a function each. Only data/dataset.cpp and the sources
// themselves include this. Read next: data/sources_folder.cpp, the commonest.
#pragma once

#include "data/dataset.h"
#include "data/file_tree.h"
#include "data/part.h"

#include <functional>
#include <map>
#include <optional>
#include <string_view>

namespace ermoe {

using Trees = std::vector<std::shared_ptr<const FileTree>>;

/// How labels become class numbers. `name`: by the sorted names. `text`: labels that are all whole numbers are the class
/// numbers themselves; otherwise by the sorted names.
enum class LabelKind { name, text };

struct FileSample {
  size_t file;  // index into the paths of its tree
  uint32_t tree;
  int32_t label;
};

/// Collects labelled image files and turns them into splits: folder, tar, webdataset and CSV sources end here.
class SplitBuilder {
 public:
  /// `source` is what messages call the data set.
  SplitBuilder(std::string source, Trees trees, LabelKind kind) : source_(std::move(source)), trees_(std::move(trees)), kind_(kind) {}

  /// Adds the sample `trees[tree]->paths()[file]`.
  void add(Part part, std::string_view label, size_t tree, size_t file);
  bool empty() const { return parts_[0].empty() && parts_[1].empty() && parts_[2].empty(); }
  /// The held-out part is `validation`, or `test` where there is none. Throws `InputError` for an empty data set, a label that
  /// is no class number, and fewer than two classes.
  DatasetSplits build(const WarnFn& warn);

 private:
  void number_labels();
  bool number_by_value();
  std::unique_ptr<ImageDataset> dataset_of(std::vector<FileSample> samples) const;

  std::string source_;
  Trees trees_;
  LabelKind kind_;
  std::vector<FileSample> parts_[3];                 // by Part; until `build`, labels count in order of arrival
  std::map<std::string, int32_t, std::less<>> ids_;  // label → number in order of arrival
  std::vector<int32_t> class_of_;                    // that number → class
  std::vector<std::string> class_names_;
};

/// The image files of `samples` as a data set; labels are indices into `class_names`.
std::unique_ptr<ImageDataset> file_dataset(const Trees& trees, std::vector<FileSample> samples, std::vector<std::string> class_names);

void warn_with(const WarnFn& warn, const std::string& text);

bool is_synthetic(const std::string& path);
DatasetSplits open_synthetic(const std::string& path);

/// Pairs of IDX files directly in a folder.
bool has_idx(const FileTree& folder);
DatasetSplits open_idx(const FileTree& folder);

/// CIFAR binaries under their usual names anywhere in a tree.
bool has_cifar(const FileTree& tree);
DatasetSplits open_cifar(const FileTree& tree, const WarnFn& warn);
/// One CIFAR binary of any name.
DatasetSplits open_cifar_file(const std::string& path);

/// Class folders in one or more trees; null splits where there are none.
DatasetSplits open_class_folders(const std::string& source, const Trees& trees, const WarnFn& warn);

/// Everything before the first dot of the last part: what the files of one sample share in a webdataset shard.
std::string_view key_of(std::string_view path);
/// The part that a shard's name or its folder's speaks of.
std::optional<Part> part_of_shard(const std::string& path);

/// True where images have a .cls file beside them.
bool is_webdataset(const FileTree& shard);
DatasetSplits open_webdataset(const std::string& source, const Trees& shards, const WarnFn& warn);

DatasetSplits open_csv(const std::string& path, const WarnFn& warn);

}  // namespace ermoe
