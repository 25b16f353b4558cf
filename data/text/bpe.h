// CLIP's byte-level BPE: a word is its UTF-8 bytes, the last of them marked as the word's end, and neighbours are merged in the order
// in which the merges were learnt. (Sennrich, Haddow and Birch 2016, arXiv 1508.07909; over bytes: Radford et al. 2019.)
// Read next: data/text/bpe_files.h, data/text/bpe_trainer.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ermoe {

inline constexpr std::string_view word_end = "</w>";
inline constexpr std::string_view start_token = "<|startoftext|>";
inline constexpr std::string_view end_token = "<|endoftext|>";
/// Tokens that every vocabulary has: each byte, each byte at a word's end, start and end.
inline constexpr int64_t fixed_tokens = 256 + 256 + 2;

/// Bytes as characters that can be seen, as GPT-2 writes them: printable ones of Latin-1 are themselves, the 68 others U+0100 and on.
/// CLIP numbers bytes in another order: the printable ones first.
class ByteSymbols {
 public:
  ByteSymbols();
  /// The symbol of a byte, UTF-8.
  const std::string& symbol(uint8_t byte) const { return symbols_[byte]; }
  /// The byte that CLIP gives the id `place`, 0 to 255.
  uint8_t byte_at(size_t place) const { return order_[place]; }
  /// The bytes that a token without its word end spells; a character that is no symbol stands for itself.
  std::string bytes_of(std::string_view token) const;

 private:
  std::vector<std::string> symbols_;  // (256) by byte
  std::vector<uint8_t> order_;        // (256) by CLIP's id
  std::unordered_map<int32_t, uint8_t> bytes_;
};

/// A vocabulary as its files have it.
struct BpeVocabulary {
  std::vector<std::string> tokens;                          // (V) by id, in symbols, `</w>` at a word's end
  std::vector<std::pair<std::string, std::string>> merges;  // (V - fixed_tokens) in the order in which they are applied
};

/// Tokens by CLIP's rule: bytes, bytes at a word's end, what the merges make, start, end. `merges` as in `BpeVocabulary`.
std::vector<std::string> tokens_by_rule(const std::vector<std::pair<std::string, std::string>>& merges);

/// Cuts words into ids. Const members may be called from several threads at once.
class Bpe {
 public:
  /// Messages call where the tokens are from `tokens_name`, and the merges `merges_name`. Throws `InputError` where they do not belong
  /// together: a number of tokens that is not 514 more than merges, a token twice, a byte or a special token that is missing, a merge
  /// of what no merge before it makes, or one that makes no token, or what another made.
  Bpe(BpeVocabulary vocabulary, const std::string& tokens_name, const std::string& merges_name);

  const BpeVocabulary& vocabulary() const { return vocabulary_; }
  int32_t start() const { return start_; }
  int32_t end() const { return end_; }
  /// Memory that `append_ids` uses again for each word.
  struct Scratch;
  /// Appends the ids of a word: bytes, at least one. n bytes take n log n steps, whatever they are.
  void append_ids(std::string_view word, std::vector<int32_t>& ids, Scratch& scratch) const;
  /// The bytes that an id of the vocabulary spells, a blank behind them where it ends a word.
  std::string bytes_of(int32_t id) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t made;
  };
  struct TextHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  void find_fixed_tokens(const std::unordered_map<std::string_view, int32_t>& ids, const std::string& name);
  void find_merges(const std::unordered_map<std::string_view, int32_t>& ids, const std::string& tokens_name,
                   const std::string& merges_name);
  void find_whole_words();
  void merge_bytes(std::string_view word, std::vector<int32_t>& ids, Scratch& scratch) const;
  const Merge* merge_of(int32_t left, int32_t right) const;
  void offer(Scratch& scratch, int32_t at) const;

  BpeVocabulary vocabulary_;
  ByteSymbols symbols_;
  std::vector<int32_t> inner_, last_;                                                // (256) ids by byte, inside a word and at its end
  std::unordered_map<uint64_t, Merge> merges_;                                       // by both ids
  std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>> whole_words_;  // by their bytes
  int32_t start_ = 0, end_ = 0;
};

struct Bpe::Scratch {
  struct Symbol {
    int32_t id;  // -1 once merged into its left neighbour
    int32_t before, next;
  };
  struct Candidate {
    int32_t rank, at;
    int32_t left, right;
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

}  // namespace ermoe
