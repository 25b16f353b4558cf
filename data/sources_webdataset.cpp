// Webdataset shards: tar files in which `key.jpg` (or .jpeg, .png) and `key.cls` make a sample. A shard belongs to training
// unless its name or its folder's says val or test. Labels as in a CSV: class numbers, or names.
// https://github.com/webdataset/webdataset
#include "core/error.h"
#include "core/file_io.h"
#include "data/caption_text.h"
#include "data/sources.h"

#include <unordered_map>

namespace ermoe {

namespace {

constexpr size_t largest_label = 4096;

std::unordered_map<std::string_view, size_t> labels_by_key(const FileTree& shard) {
  std::unordered_map<std::string_view, size_t> found;
  const auto& paths = shard.paths();
  for (size_t i = 0; i < paths.size(); ++i) {
    if (extension(paths[i]) == "cls") found.emplace(key_of(paths[i]), i);
  }
  return found;
}

}  // namespace

std::string_view key_of(std::string_view path) {
  const size_t leaf = path.size() - base_name(path).size();
  return path.substr(0, path.find('.', leaf));
}

std::optional<Part> part_of_shard(const std::string& path) {
  if (const auto part = part_of_file(path)) return part;
  return part_of_folder(std::filesystem::path(path).parent_path().filename().string());
}

bool is_webdataset(const FileTree& shard) { return !labels_by_key(shard).empty(); }

DatasetSplits open_webdataset(const std::string& source, const Trees& shards, const WarnFn& warn) {
  SplitBuilder builder(source, shards, LabelKind::text);
  int64_t unlabelled = 0;
  std::string example;
  for (size_t t = 0; t < shards.size(); ++t) {
    const FileTree& shard = *shards[t];
    const Part part = part_of_shard(shard.root()).value_or(Part::train);
    const auto labels = labels_by_key(shard);
    for (size_t i = 0; i < shard.paths().size(); ++i) {
      const std::string& path = shard.paths()[i];
      if (!is_image_name(path)) continue;
      const auto label = labels.find(key_of(path));
      if (label == labels.end()) {
        if (unlabelled++ == 0) example = shard.name(i);
        continue;
      }
      const std::string text = shard.read(label->second, largest_label);
      check_input(!trimmed(text).empty(), "{}: the label is empty", shard.name(label->second));
      builder.add(part, trimmed(text), t, i);
    }
  }
  if (unlabelled > 0)
    warn_with(warn, fmt::format("{}: {} images without a .cls file are ignored, for example {}", source, unlabelled, example));
  return builder.build(warn);
}

}  // namespace ermoe
