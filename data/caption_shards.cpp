// Captions in webdataset shards: `key.jpg` beside `key.txt` (each line a caption) or `key.json` ("caption" or "captions").
// https://github.com/webdataset/webdataset. Read data/caption_files.h first.
#include "core/error.h"
#include "core/json.h"
#include "data/caption_files.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace ermoe {

namespace {

using nlohmann::json;

constexpr size_t largest_text = size_t{1} << 20;

bool is_text(std::string_view path) { return extension(path) == "txt"; }
bool is_caption_member(std::string_view path) { return is_text(path) || extension(path) == "json"; }

/// Captions files by key; a .txt goes before a .json.
std::unordered_map<std::string_view, size_t> captions_by_key(const FileTree& shard) {
  std::unordered_map<std::string_view, size_t> found;
  const auto& paths = shard.paths();
  for (size_t i = 0; i < paths.size(); ++i) {
    if (!is_caption_member(paths[i])) continue;
    const auto [at, is_new] = found.emplace(key_of(paths[i]), i);
    if (!is_new && is_text(paths[i])) at->second = i;
  }
  return found;
}

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  text = trimmed(text);
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = trimmed(text.substr(at, end - at));
    if (!line.empty() || text.empty()) lines.emplace_back(line);  // a file without any text is an empty caption
    at = end + 1;
  }
  return lines;
}

/// Captions of a JSON member; none where it has no such key.
std::vector<std::string> captions_in(const std::string& text, const std::string& name) {
  const JsonLimits limits{.max_bytes = 4 * largest_text, .max_depth = 16, .max_values = 10'000, .keys = {"caption", "captions"}};
  const json document = parse_json(with_wrong_bytes_marked(text).value_or(text), name, limits);
  check_input(document.is_object(), "{}: is no object with keys", name);
  const auto at = document.contains("captions") ? document.find("captions") : document.find("caption");
  if (at == document.end()) return {};
  if (at->is_string()) return {at->get<std::string>()};
  check_input(at->is_array() && std::ranges::all_of(*at, [](const json& one) { return one.is_string(); }),
              "{}: \"{}\" is neither a text nor a list of texts", name, at.key());
  return at->get<std::vector<std::string>>();
}

void add_shard(const Trees& shards, uint32_t t, CaptionBuilder& builder) {
  const FileTree& shard = *shards[t];
  const auto& paths = shard.paths();
  auto captions = captions_by_key(shard);
  const auto part = part_of_shard(shard.root());
  for (size_t i = 0; i < paths.size(); ++i) {
    if (!is_image_name(paths[i])) continue;
    const auto at = captions.find(key_of(paths[i]));
    if (at == captions.end()) continue;  // the builder counts it
    const size_t file = at->second;
    const std::string name = shard.name(file);
    CaptionEntry entry{.image = paths[i], .above = {}, .part = part, .captions = {}, .kind = EntryKind::whole};
    const CaptionPlace place{.file = name};
    try {
      entry.captions = is_text(paths[file]) ? lines_of(shard.read(file, largest_text)) : captions_in(shard.read(file, largest_text), name);
    } catch (const InputError&) {
      builder.leave_out(CaptionFault::torn, place);
    }
    builder.add_file(place, t, i, entry);
  }
  std::unordered_map<std::string_view, bool> has_image;
  for (const std::string& path : paths)
    if (is_image_name(path)) has_image[key_of(path)] = true;
  for (size_t i = 0; i < paths.size(); ++i) {
    if (is_text(paths[i]) && !has_image.contains(key_of(paths[i]))) builder.miss({.file = shard.root()}, paths[i]);
  }
}

}  // namespace

bool is_caption_shard(const FileTree& shard) {
  const auto& paths = shard.paths();
  if (std::ranges::any_of(paths, [](const std::string& path) { return extension(path) == "cls"; })) return false;
  const auto captions = captions_by_key(shard);
  for (const std::string& path : paths) {
    const auto at = is_image_name(path) ? captions.find(key_of(path)) : captions.end();
    if (at == captions.end()) continue;
    // JSON beside an image may say anything; that of the first image decides.
    return is_text(paths[at->second]) || shard.read(at->second, largest_text).find("\"caption") != std::string::npos;
  }
  return false;
}

void add_caption_shards(const Trees& shards, CaptionBuilder& builder) {
  for (uint32_t t = 0; t < shards.size(); ++t) add_shard(shards, t, builder);
}

}  // namespace ermoe
