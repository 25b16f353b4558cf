#include "data/caption_files.h"

#include "core/error.h"
#include "core/file_io.h"

#include <algorithm>
#include <array>
#include <sstream>

namespace ermoe {

namespace {

constexpr size_t largest_file = size_t{1} << 30;
constexpr size_t largest_list = size_t{16} << 20;
constexpr size_t looked_at = 65536;  // bytes at the beginning of JSON

/// Kinds of captions files; where several lie together the first counts.
enum class Kind { karpathy, coco, list, table };
constexpr size_t kinds = 4;

bool is_json(std::string_view path) { return extension(path) == "json"; }

struct Guess {
  Kind kind;
  bool certain;  // by the name alone, so that a damaged file is refused and not passed over; otherwise its content decides
};

/// What a name says.
std::optional<Guess> guess_by_name(std::string_view path) {
  const std::string leaf = lower(base_name(path)), ending = extension(path);
  if (ending == "json") {
    if (leaf == "captions.json") return Guess{Kind::list, true};
    if (leaf.starts_with("captions_")) return Guess{Kind::coco, true};
    if (leaf == "dataset_coco.json" || leaf == "dataset_flickr8k.json" || leaf == "dataset_flickr30k.json")
      return Guess{Kind::karpathy, true};
    if (leaf.starts_with("dataset")) return Guess{Kind::karpathy, false};
    if (leaf.find("karpathy") != std::string::npos) return Guess{Kind::coco, false};
    if (leaf == "annotations.json" || part_of_file(path)) return Guess{Kind::list, false};
    return std::nullopt;
  }
  if (leaf == "captions.csv" || leaf == "captions.tsv" || leaf == "captions.txt") return Guess{Kind::table, true};
  const bool tokens = leaf.ends_with(".token.txt") && !leaf.ends_with(".lemma.token.txt");
  if (ending == "csv" || ending == "tsv" || ending == "token" || tokens) return Guess{Kind::table, false};
  return std::nullopt;
}

/// Whether an image of the same key lies beside file i, as in webdataset shards: then it speaks of that image alone.
bool lies_beside_image(const FileTree& tree, size_t i) {
  const auto& paths = tree.paths();
  const std::string_view key = key_of(paths[i]);
  size_t at = i;
  while (at > 0 && key_of(paths[at - 1]) == key) --at;
  for (; at < paths.size() && key_of(paths[at]) == key; ++at)
    if (is_image_name(paths[at])) return true;
  return false;
}

std::array<std::vector<size_t>, kinds> candidates_in(const FileTree& tree) {
  constexpr size_t most_looks = 64;
  std::array<std::vector<size_t>, kinds> found;
  size_t looks = 0;
  for (size_t i = 0; i < tree.paths().size(); ++i) {
    const std::string& path = tree.paths()[i];
    const auto guess = guess_by_name(path);
    if (!guess || lies_beside_image(tree, i)) continue;
    if (guess->certain || (looks++ < most_looks && looks_like_captions(path, tree.read(i, largest_file))))
      found[static_cast<size_t>(guess->kind)].push_back(i);
  }
  return found;
}

/// What Flickr_8k.trainImages.txt, .devImages.txt and .testImages.txt say: a name of an image a line.
std::unordered_map<std::string, Part> parts_listed_in(const FileTree& tree) {
  constexpr std::array<std::pair<std::string_view, Part>, 3> lists = {
      {{".trainimages.txt", Part::train}, {".devimages.txt", Part::validation}, {".testimages.txt", Part::test}}};
  std::unordered_map<std::string, Part> parts;
  for (size_t i = 0; i < tree.paths().size(); ++i) {
    for (const auto& [ending, part] : lists) {
      if (!lower(tree.paths()[i]).ends_with(ending)) continue;
      std::istringstream lines(tree.read(i, largest_list));
      for (std::string line; std::getline(lines, line);) parts.emplace(trimmed(line), part);
    }
  }
  return parts;
}

}  // namespace

bool looks_like_captions(std::string_view path, std::string_view text) {
  if (!is_json(path)) return is_caption_table(text);
  const std::string_view head = text.substr(0, looked_at);
  constexpr std::array<std::string_view, 3> keys = {"\"caption\"", "\"captions\"", "\"sentences\""};
  return std::ranges::any_of(keys, [&](std::string_view key) { return head.find(key) != std::string_view::npos; });
}

FoundCaptions find_caption_files(const FileTree& tree) {
  FoundCaptions found;
  for (const auto& files : candidates_in(tree)) {
    if (!found.files.empty() && !files.empty() && found.note.empty())
      found.note = fmt::format("the captions are those of {}; {} is left alone", tree.name(found.files.front()), tree.name(files.front()));
    if (found.files.empty()) found.files = files;
  }
  return found;
}

void check_one_is_meant(const FileTree& tree, const FoundCaptions& found) {
  const auto names_part = [&](size_t i) { return part_of_file(tree.paths()[i]).has_value(); };
  if (found.files.size() < 2 || std::ranges::all_of(found.files, names_part)) return;
  fail_input("{}: {} and {} both hold captions; name the one that is meant as the path", tree.root(), tree.paths()[found.files.front()],
             tree.paths()[found.files.back()]);
}

CaptionFile caption_file(std::string name, std::string_view path, std::string text) {
  const std::string_view leaf = base_name(path);
  return {std::move(name), std::string(path.substr(0, path.size() - leaf.size())), part_of_file(path), std::move(text), {}};
}

CaptionFile read_caption_file(const FileTree& tree, size_t i) {
  CaptionFile file = caption_file(tree.name(i), tree.paths()[i], tree.read(i, largest_file));
  if (!is_json(file.name) && tree.paths()[i].find(".token") != std::string::npos) file.parts = parts_listed_in(tree);
  return file;
}

void add_captions(const CaptionFile& file, CaptionBuilder& builder) {
  if (is_json(file.name))
    add_caption_json(file, builder);
  else
    add_caption_table(file, builder);
}

}  // namespace ermoe
