// Finds out where captions stand at a path. Read data/captions.h first, then data/caption_files.h.
#include "data/captions.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/archive_list.h"
#include "data/caption_files.h"
#include "data/subset.h"

#include <algorithm>
#include <filesystem>

namespace ermoe {

namespace fs = std::filesystem;

namespace {

constexpr size_t largest_file = size_t{1} << 30;
constexpr const char* accepted =
    "accepted are, in a folder, .tar or .tar.gz, images with captions_*.json (COCO), dataset_*.json (Karpathy), captions.json, "
    "captions.csv, .tsv or .txt, results.csv or *.token.txt; such a file itself; and webdataset shards (.tar) with a .txt or .json beside "
    "each image";

/// Where captions stand: in files of the first tree, in a file that the user named, or beside the images of each tree.
struct Source {
  Trees trees;
  FoundCaptions found;
  std::string named;  // path of a captions file, within the first tree
  bool shards = false;
  bool holds_any() const { return shards || !named.empty() || !found.files.empty(); }
};

bool is_directory(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

/// Images of a captions file lie beside it, below it, or (as COCO has it) beside the folder "annotations" that it lies in.
Source source_beside(const std::string& file) {
  const fs::path path = fs::path(file).lexically_normal();
  fs::path folder = path.parent_path(), inside = path.filename();
  if (lower(folder.filename().string()) == "annotations") {
    inside = folder.filename() / inside;
    folder = folder.parent_path();
  }
  return {{open_folder(folder.empty() ? "." : folder)}, {}, inside.string(), false};
}

Source source_of_shards(const std::vector<std::string>& paths) {
  Source source{open_shards(paths), {}, {}, false};
  source.shards = !source.trees.empty() && is_caption_shard(*source.trees.front());
  return source;
}

Source source_at(const std::string& path) {
  const bool folder = is_directory(path), there = path_exists(path);
  if (!there) return source_of_shards(archive_list(path));
  if (!folder && !is_archive_name(path)) return source_beside(path);
  Source source{{open_tree(path)}, {}, {}, false};
  source.found = find_caption_files(*source.trees.front());
  if (!source.found.files.empty()) return source;
  if (!folder) return source_of_shards({path});
  const auto archives = archives_in(*source.trees.front());
  return archives.empty() ? source : source_of_shards(archives);
}

void hold_out(CaptionSplits& splits, const std::string& path, const CaptionOptions& options) {
  if (splits.test || !splits.train) return;
  if (options.holdout <= 0) {
    warn_with(options.warn,
              fmt::format("{}: has no part to evaluate on, and no share of the training images is held out (data.val_share)", path));
    return;
  }
  const IndexSplit split = holdout_indices(*splits.train, options.holdout, options.seed);
  check_input(!split.held_out.empty(), "{}: has a single image, so none can be held out", path);
  splits.test = splits.train->pick(split.held_out);
  splits.evaluated = "held out";
  splits.train = splits.train->pick(split.kept);
}

}  // namespace

CaptionDataset::CaptionDataset(std::shared_ptr<const ImageDataset> images, std::vector<std::string> captions, std::vector<int64_t> first)
    : images_(std::move(images)), captions_(std::move(captions)), first_(std::move(first)) {
  check(std::ssize(first_) == images_->size() + 1 && first_.front() == 0 && first_.back() == std::ssize(captions_),
        "[captions] {} places and {} captions for {} images", first_.size(), captions_.size(), images_->size());
  check(std::ranges::adjacent_find(first_, std::greater_equal{}) == first_.end(), "[captions] an image without a caption");
}

std::span<const std::string> CaptionDataset::captions(int64_t i) const {
  const int64_t begin = first_caption(i), end = first_caption(i + 1);
  return std::span(captions_).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

std::vector<int64_t> CaptionDataset::owners() const {
  std::vector<int64_t> owners;
  owners.reserve(captions_.size());
  for (int64_t i = 0; i < size(); ++i) owners.resize(static_cast<size_t>(first_caption(i + 1)), i);
  return owners;
}

std::unique_ptr<CaptionDataset> CaptionDataset::pick(const std::vector<int64_t>& indices) const {
  std::shared_ptr<const ImageDataset> images = subset(images_, indices);
  std::vector<std::string> captions;
  std::vector<int64_t> first = {0};
  for (const int64_t i : indices) {
    const auto own = this->captions(i);
    captions.insert(captions.end(), own.begin(), own.end());
    first.push_back(std::ssize(captions));
  }
  return std::make_unique<CaptionDataset>(std::move(images), std::move(captions), std::move(first));
}

CaptionSplits open_captions(const std::string& path, const CaptionOptions& options) {
  check_input(!path.empty(), "data.path: no data set is named; {}", accepted);
  check_input(options.max_bad >= 0 && options.max_bad <= 1, "max_bad: {} is not a share between 0 and 1", options.max_bad);
  check_input(path_exists(path) || archive_list(path).size() > 1, "{}: there is no such file or folder; {}", path, accepted);
  const Source source = source_at(path);
  const FileTree& tree = *source.trees.front();
  check_input(source.holds_any(), "{}: holds {}, but no captions; {}", path, contents_of(tree), accepted);
  check_one_is_meant(tree, source.found);
  if (!source.found.note.empty()) warn_with(options.warn, source.found.note);
  CaptionBuilder builder(path, source.trees, options);
  if (source.shards) add_caption_shards(source.trees, builder);
  if (!source.named.empty()) add_captions(caption_file(path, source.named, read_file(path, largest_file)), builder);
  for (const size_t file : source.found.files) add_captions(read_caption_file(tree, file), builder);
  CaptionSplits splits = builder.build();
  hold_out(splits, path, options);
  return splits;
}

bool holds_captions(const std::string& path) {
  try {
    if (path_exists(path) && !is_directory(path) && !is_archive_name(path)) {
      const std::string ending = extension(path);
      const bool known = ending == "json" || ending == "csv" || ending == "tsv" || ending == "txt" || ending == "token";
      return known && looks_like_captions(path, read_file(path, largest_file));
    }
    return source_at(path).holds_any();
  } catch (const InputError&) {
    return false;
  }
}

}  // namespace ermoe
