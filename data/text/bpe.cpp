// Byte-level BPE. Read data/text/bpe.h first.
#include "data/text/bpe.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/text/unicode.h"

#include <algorithm>
#include <unordered_set>

namespace ermoe {
namespace {

/// Bytes of a token's symbols; a hostile file may have tokens of megabytes.
constexpr size_t longest_whole_word = 256;

uint64_t key_of(int32_t left, int32_t right) { return (static_cast<uint64_t>(left) << 32) | static_cast<uint32_t>(right); }

bool is_printable_latin(int byte) { return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE; }

/// Lowest rank on top of a heap, of equal ranks the leftmost.
bool comes_later(const Bpe::Scratch::Candidate& a, const Bpe::Scratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
}

}  // namespace

ByteSymbols::ByteSymbols() : symbols_(256) {
  for (int byte = 0; byte < 256; ++byte)
    if (is_printable_latin(byte)) order_.push_back(static_cast<uint8_t>(byte));
  const size_t printable_bytes = order_.size();
  for (int byte = 0; byte < 256; ++byte)
    if (!is_printable_latin(byte)) order_.push_back(static_cast<uint8_t>(byte));
  for (size_t i = 0; i < 256; ++i) {
    const auto character = static_cast<int32_t>(i < printable_bytes ? order_[i] : 0x100 + i - printable_bytes);
    append_code_point(symbols_[order_[i]], character);
    bytes_[character] = order_[i];
  }
}

std::string ByteSymbols::bytes_of(std::string_view token) const {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const CodePoint c = code_point_at(token, at);
    const size_t length = c.bytes == 0 ? 1 : static_cast<size_t>(c.bytes);
    const auto found = bytes_.find(c.value);
    if (c.bytes > 0 && found != bytes_.end())
      bytes += static_cast<char>(found->second);
    else
      bytes.append(token, at, length);
    at += length;
  }
  return bytes;
}

std::vector<std::string> tokens_by_rule(const std::vector<std::pair<std::string, std::string>>& merges) {
  const ByteSymbols symbols;
  std::vector<std::string> tokens;
  tokens.reserve(merges.size() + fixed_tokens);
  for (size_t i = 0; i < 256; ++i) tokens.push_back(symbols.symbol(symbols.byte_at(i)));
  for (size_t i = 0; i < 256; ++i) tokens.push_back(tokens[i] + std::string(word_end));
  for (const auto& [left, right] : merges) tokens.push_back(left + right);
  tokens.emplace_back(start_token);
  tokens.emplace_back(end_token);
  return tokens;
}

Bpe::Bpe(BpeVocabulary vocabulary, const std::string& tokens_name, const std::string& merges_name) : vocabulary_(std::move(vocabulary)) {
  const auto tokens = static_cast<int64_t>(vocabulary_.tokens.size()), merges = static_cast<int64_t>(vocabulary_.merges.size());
  check_input(tokens == fixed_tokens + merges,
              "{} has {} tokens, but the {} merges of {} want {}: 512 of single bytes, one for each merge, start and end", tokens_name,
              tokens, merges, merges_name, fixed_tokens + merges);
  std::unordered_map<std::string_view, int32_t> ids;
  for (const std::string& token : vocabulary_.tokens) {
    const bool is_new = ids.emplace(token, static_cast<int32_t>(ids.size())).second;
    check_input(is_new, "{} has the token '{}' twice", tokens_name, printable(token));
  }
  find_fixed_tokens(ids, tokens_name);
  find_merges(ids, tokens_name, merges_name);
  find_whole_words();
}

void Bpe::find_fixed_tokens(const std::unordered_map<std::string_view, int32_t>& ids, const std::string& name) {
  const auto id_of = [&](std::string_view token) {
    const auto found = ids.find(token);
    check_input(found != ids.end(), "{} lacks the token '{}', which CLIP's vocabularies have", name, printable(token));
    return found->second;
  };
  for (size_t byte = 0; byte < 256; ++byte) {
    const std::string& symbol = symbols_.symbol(static_cast<uint8_t>(byte));
    inner_.push_back(id_of(symbol));
    last_.push_back(id_of(symbol + std::string(word_end)));
  }
  start_ = id_of(start_token);
  end_ = id_of(end_token);
}

void Bpe::find_merges(const std::unordered_map<std::string_view, int32_t>& ids, const std::string& tokens_name,
                      const std::string& merges_name) {
  std::unordered_set<int32_t> known(inner_.begin(), inner_.end());
  known.insert(last_.begin(), last_.end());
  merges_.reserve(vocabulary_.merges.size());
  int32_t rank = 0;
  for (const auto& [left, right] : vocabulary_.merges) {
    const auto part = [&](const std::string& token) {
      const auto found = ids.find(token);
      const bool made = found != ids.end() && known.contains(found->second);
      check_input(made, "{}, merge {} ('{} {}'): '{}' is no byte, and no merge before makes it", merges_name, rank + 1, printable(left),
                  printable(right), printable(token));
      return found->second;
    };
    const int32_t left_id = part(left), right_id = part(right);
    const auto made = ids.find(left + right);
    check_input(made != ids.end(), "{}, merge {} makes '{}', which is no token of {}", merges_name, rank + 1, printable(left + right),
                tokens_name);
    check_input(known.insert(made->second).second, "{}, merge {} makes '{}', which is there already", merges_name, rank + 1,
                printable(left + right));
    merges_[key_of(left_id, right_id)] = {rank++, made->second};
  }
}

/// Most words are one token: knowing these by their bytes makes a caption twice as fast. A token that its own bytes do not merge into,
/// as a list of merges may have it that nobody learnt, is left out.
void Bpe::find_whole_words() {
  Scratch scratch;
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < static_cast<int32_t>(vocabulary_.tokens.size()); ++id) {
    std::string_view token = vocabulary_.tokens[static_cast<size_t>(id)];
    if (!token.ends_with(word_end) || token.size() == word_end.size() || token.size() > longest_whole_word) continue;
    token.remove_suffix(word_end.size());
    const std::string word = symbols_.bytes_of(token);
    ids.clear();
    merge_bytes(word, ids, scratch);
    if (ids.size() == 1 && ids[0] == id) whole_words_[word] = id;
  }
}

const Bpe::Merge* Bpe::merge_of(int32_t left, int32_t right) const {
  const auto found = merges_.find(key_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

/// Puts the symbol at `at` and the one behind it on the heap, where some merge joins them.
void Bpe::offer(Scratch& scratch, int32_t at) const {
  const Scratch::Symbol& left = scratch.symbols[static_cast<size_t>(at)];
  if (left.next < 0) return;
  const int32_t right = scratch.symbols[static_cast<size_t>(left.next)].id;
  const Merge* merge = merge_of(left.id, right);
  if (merge == nullptr) return;
  scratch.heap.push_back({merge->rank, at, left.id, right});
  std::ranges::push_heap(scratch.heap, comes_later);
}

void Bpe::append_ids(std::string_view word, std::vector<int32_t>& ids, Scratch& scratch) const {
  if (const auto found = whole_words_.find(word); found != whole_words_.end())
    ids.push_back(found->second);
  else
    merge_bytes(word, ids, scratch);
}

/// What a merge makes is merged later than itself, so taking one candidate after the other does the same as merging every occurrence
/// of the first merge, left to right, then of the next.
void Bpe::merge_bytes(std::string_view word, std::vector<int32_t>& ids, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  scratch.heap.clear();
  const auto count = static_cast<int32_t>(word.size());
  for (int32_t i = 0; i < count; ++i) {
    const auto byte = static_cast<uint8_t>(word[static_cast<size_t>(i)]);
    const bool last = i + 1 == count;
    symbols.push_back({last ? last_[byte] : inner_[byte], i - 1, last ? -1 : i + 1});
  }
  for (int32_t i = 0; i < count; ++i) offer(scratch, i);
  while (!scratch.heap.empty()) {
    std::ranges::pop_heap(scratch.heap, comes_later);
    const Scratch::Candidate best = scratch.heap.back();
    scratch.heap.pop_back();
    Scratch::Symbol& left = symbols[static_cast<size_t>(best.at)];
    if (left.id != best.left || left.next < 0) continue;
    Scratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    if (right.id != best.right) continue;
    left.id = merge_of(best.left, best.right)->made;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].before = best.at;
    if (left.before >= 0) offer(scratch, left.before);
    offer(scratch, best.at);
  }
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) ids.push_back(symbols[static_cast<size_t>(i)].id);
}

std::string Bpe::bytes_of(int32_t id) const {
  std::string_view token = vocabulary_.tokens[static_cast<size_t>(id)];
  const bool ends = token.ends_with(word_end) && token.size() > word_end.size();
  if (ends) token.remove_suffix(word_end.size());
  return symbols_.bytes_of(token) + (ends ? " " : "");
}

}  // namespace ermoe
