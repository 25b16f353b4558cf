// Reading vocabularies that nobody vouches for. Read data/text/bpe_files.h first.
#include "data/text/bpe_files.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"
#include "data/gzip.h"
#include "data/text/unicode.h"

#include <nlohmann/json.hpp>

#include <filesystem>

namespace ermoe {
namespace {

using nlohmann::json;
using Merges = std::vector<std::pair<std::string, std::string>>;

constexpr size_t most_bytes = size_t{32} << 20;
constexpr size_t most_tokens = 1'000'000;
/// CLIP's 49,408 tokens are so many merges and 514 others; its file has five times as many.
constexpr size_t clip_merges = 48'894;

JsonLimits json_limits() { return {.max_bytes = most_bytes, .max_depth = 16}; }

/// "left right", of the merge that comes next.
void add_merge(Merges& merges, std::string_view line, const std::string& name) {
  const size_t blank = line.find(' ');
  const bool two =
      blank != std::string_view::npos && blank > 0 && blank + 1 < line.size() && line.find(' ', blank + 1) == std::string_view::npos;
  check_input(two && !first_invalid_byte(line), "{}, merge {}: '{}' is not two tokens with a blank between them", name, merges.size() + 1,
              printable(line));
  merges.emplace_back(line.substr(0, blank), line.substr(blank + 1));
}

/// The merges of a text, one a line, behind a first line that may name a version; at most `most`.
Merges read_merges(const std::string& path, size_t most) {
  const std::string text = read_plain_or_gzip(path, most_bytes);
  Merges merges;
  std::string_view rest = text;
  for (bool first = true; !rest.empty() && merges.size() < most; first = false) {
    const size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (first && line.find("#version") != std::string_view::npos)) continue;
    add_merge(merges, line, path);
    check_input(merges.size() <= most_tokens, "{} has more than {} merges", path, most_tokens);
  }
  return merges;
}

/// Puts a token at its id. `tokens` has room for as many as there are: so many distinct ids in range are all of them.
void place_token(std::vector<std::string>& tokens, const std::string& token, const json& id, const std::string& name) {
  const auto size = static_cast<int64_t>(tokens.size());
  const bool in_range = id.is_number_integer() && id >= 0 && id < size;
  check_input(in_range, "{}: the id of '{}' is {}, and {} tokens have the ids 0 to {}", name, printable(token), printable(id.dump()), size,
              size - 1);
  check_input(!token.empty(), "{} has an empty token", name);
  std::string& place = tokens[id.get<size_t>()];
  check_input(place.empty(), "{}: '{}' and '{}' have the same id {}", name, printable(place), printable(token), id.get<int64_t>());
  place = token;
}

/// The tokens of a JSON object from token to id, and of `more` those that it lacks.
std::vector<std::string> tokens_of(const json& vocab, const std::vector<std::pair<std::string, json>>& more, const std::string& name) {
  check_input(vocab.is_object(), "{} is no vocabulary: it wants an object from token to id", name);
  size_t count = vocab.size();
  for (const auto& [token, id] : more) count += vocab.contains(token) ? 0 : 1;
  check_input(count <= most_tokens, "{} has {} tokens, and {} are the most", name, count, most_tokens);
  std::vector<std::string> tokens(count);
  for (const auto& [token, id] : vocab.items()) place_token(tokens, token, id, name);
  for (const auto& [token, id] : more)
    if (!vocab.contains(token)) place_token(tokens, token, id, name);
  return tokens;
}

/// The member of an object, or null.
const json& member(const json& object, const char* key) {
  static const json none;
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() ? *found : none;
}

/// Tokens that a tokenizer.json adds to those of its model.
std::vector<std::pair<std::string, json>> added_tokens(const json& file, const std::string& path) {
  std::vector<std::pair<std::string, json>> added;
  for (const json& entry : member(file, "added_tokens")) {
    const json& content = member(entry, "content");
    check_input(content.is_string(), "{}: an entry of added_tokens has no content", path);
    added.emplace_back(content.get<std::string>(), member(entry, "id"));
  }
  return added;
}

/// "left right", or ["left", "right"] in newer files.
Merges merges_of(const json& list, const std::string& path) {
  check_input(list.is_array(), "{}: model.merges is no list", path);
  Merges merges;
  for (const json& merge : list) {
    if (merge.is_string()) {
      add_merge(merges, merge.get_ref<const std::string&>(), path);
      continue;
    }
    const bool two = merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
    check_input(two, "{}, merge {} is not two tokens", path, merges.size() + 1);
    merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
  }
  return merges;
}

}  // namespace

Bpe read_vocab_and_merges(const std::string& vocab_path, const std::string& merges_path) {
  const json vocab = read_json(vocab_path, json_limits());
  return {{tokens_of(vocab, {}, vocab_path), read_merges(merges_path, most_tokens + 1)}, vocab_path, merges_path};
}

Bpe read_tokenizer_json(const std::string& path) {
  const json file = read_json(path, json_limits());
  const json& model = member(file, "model");
  const json& type = member(model, "type");
  check_input(model.is_object(), "{} is no tokenizer.json: it has no model", path);
  // Files of early versions name no type.
  check_input(type.is_null() || type == "BPE", "{}: model.type is {}, and only BPE is read", path, printable(type.dump()));
  const json& suffix = member(model, "end_of_word_suffix");
  check_input(suffix == std::string(word_end), "{}: model.end_of_word_suffix is {}, and CLIP's is \"{}\"", path, printable(suffix.dump()),
              word_end);
  return {{tokens_of(member(model, "vocab"), added_tokens(file, path), path), merges_of(member(model, "merges"), path)}, path, path};
}

Bpe read_clip_merges(const std::string& path) {
  Merges merges = read_merges(path, clip_merges);
  check_input(merges.size() == clip_merges, "{} has {} merges, and CLIP's vocabulary is made of {}: it is cut short, or another's", path,
              merges.size(), clip_merges);
  std::vector<std::string> tokens = tokens_by_rule(merges);
  return {{std::move(tokens), std::move(merges)}, path, path};
}

}  // namespace ermoe
