// Learning merges. Pairs are counted once; after that a merge touches the words alone that hold its pair, and a heap knows the most
// frequent pair. Read data/text/bpe_trainer.h first.
#include "data/text/bpe_trainer.h"

#include "core/error.h"
#include "data/text/bpe.h"
#include "data/text/bpe_tokenizer.h"
#include "data/text/caption.h"

#include <algorithm>
#include <queue>
#include <unordered_set>
#include <vector>

namespace ermoe {
namespace {

constexpr int64_t least_count = 2;
constexpr int32_t every_symbol = -1;

struct Pair {
  int32_t left, right;
  bool operator==(const Pair&) const = default;
};

struct PairHash {
  size_t operator()(Pair pair) const {
    const uint64_t both = (static_cast<uint64_t>(pair.left) << 32) | static_cast<uint32_t>(pair.right);
    return static_cast<size_t>((both * 0x9E3779B97F4A7C15u) >> 16);
  }
};

struct Word {
  std::vector<int32_t> symbols;
  int64_t count;
};

/// What is known of a pair. `words` may name words that hold it no longer, and one several times.
struct PairState {
  int64_t count = 0;
  std::vector<int32_t> words;
  bool changed = false;  // since it was last put on the heap
};

struct Candidate {
  int64_t count;
  Pair pair;
};

struct IsWorse {
  bool operator()(const Candidate& a, const Candidate& b) const {
    if (a.count != b.count) return a.count < b.count;
    if (a.pair.left != b.pair.left) return a.pair.left > b.pair.left;
    return a.pair.right > b.pair.right;
  }
};

/// Replaces each occurrence of a pair, left to right.
void join(std::vector<int32_t>& symbols, Pair pair, int32_t made) {
  size_t kept = 0;
  for (size_t i = 0; i < symbols.size(); ++i) {
    const bool joins = i + 1 < symbols.size() && Pair{symbols[i], symbols[i + 1]} == pair;
    symbols[kept++] = joins ? made : symbols[i];
    if (joins) ++i;
  }
  symbols.resize(kept);
}

class Learner {
 public:
  explicit Learner(const std::unordered_map<std::string, int64_t>& words);
  /// Up to `most` merges.
  std::vector<std::pair<std::string, std::string>> merges(size_t most);

 private:
  PairState& change_count(Pair pair, int64_t by);
  void add_pairs(int32_t word, int32_t made);
  bool take_away_pairs(const Word& word, Pair pair);
  void apply(Pair pair, int32_t made);
  void put_changed_on_heap();

  std::vector<std::string> tokens_;
  std::vector<Word> words_;
  std::unordered_map<Pair, PairState, PairHash> pairs_;
  std::vector<Pair> changed_;
  std::priority_queue<Candidate, std::vector<Candidate>, IsWorse> heap_;
};

/// The ids of single bytes, inside a word and at its end, are CLIP's.
Learner::Learner(const std::unordered_map<std::string, int64_t>& words) : tokens_(tokens_by_rule({})) {
  tokens_.resize(512);
  const ByteSymbols symbols;
  std::vector<int32_t> place(256);
  for (size_t i = 0; i < 256; ++i) place[symbols.byte_at(i)] = static_cast<int32_t>(i);
  for (const auto& [text, count] : words) {
    Word word{{}, count};
    for (const char c : text) word.symbols.push_back(place[static_cast<uint8_t>(c)]);
    word.symbols.back() += 256;
    words_.push_back(std::move(word));
    add_pairs(static_cast<int32_t>(words_.size()) - 1, every_symbol);
  }
  put_changed_on_heap();
}

PairState& Learner::change_count(Pair pair, int64_t by) {
  PairState& state = pairs_[pair];
  state.count += by;
  if (!state.changed) changed_.push_back(pair);
  state.changed = true;
  return state;
}

/// Counts the pairs of a word that hold the symbol `made`, and notes that the word has them.
void Learner::add_pairs(int32_t word, int32_t made) {
  const auto& [symbols, count] = words_[static_cast<size_t>(word)];
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    const Pair pair{symbols[i], symbols[i + 1]};
    if (made != every_symbol && pair.left != made && pair.right != made) continue;
    PairState& state = change_count(pair, count);
    if (state.words.empty() || state.words.back() != word) state.words.push_back(word);
  }
}

/// Takes from the counts what a word adds with the symbols that `pair` has in it, left to right. False where it has none.
bool Learner::take_away_pairs(const Word& word, Pair pair) {
  const std::vector<int32_t>& symbols = word.symbols;
  size_t taken = 0;  // pairs that begin before this symbol are done with
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    if (Pair{symbols[i], symbols[i + 1]} != pair) continue;
    for (size_t j = std::max(taken, i == 0 ? 0 : i - 1); j < std::min(i + 2, symbols.size() - 1); ++j)
      change_count({symbols[j], symbols[j + 1]}, -word.count);
    taken = i + 2;
    ++i;
  }
  return taken > 0;
}

/// Replaces the pair by the symbol `made` in every word, left to right.
void Learner::apply(Pair pair, int32_t made) {
  const std::vector<int32_t> touched = std::move(pairs_[pair].words);
  for (const int32_t index : touched) {
    Word& word = words_[static_cast<size_t>(index)];
    if (!take_away_pairs(word, pair)) continue;
    join(word.symbols, pair, made);
    add_pairs(index, made);
  }
}

void Learner::put_changed_on_heap() {
  for (const Pair pair : changed_) {
    const auto state = pairs_.find(pair);
    state->second.changed = false;
    if (state->second.count > 0)
      heap_.push({state->second.count, pair});
    else
      pairs_.erase(state);
  }
  changed_.clear();
}

std::vector<std::pair<std::string, std::string>> Learner::merges(size_t most) {
  std::vector<std::pair<std::string, std::string>> merges;
  std::unordered_set<std::string> known(tokens_.begin(), tokens_.end());
  while (merges.size() < most && !heap_.empty()) {
    const auto [count, pair] = heap_.top();
    heap_.pop();
    const auto state = pairs_.find(pair);
    if (state == pairs_.end() || state->second.count != count) continue;  // a later entry has what it counts now
    if (count < least_count) break;
    const std::string& left = tokens_[static_cast<size_t>(pair.left)];
    const std::string& right = tokens_[static_cast<size_t>(pair.right)];
    if (!known.insert(left + right).second) continue;  // two ways to one token would give it two ids
    merges.emplace_back(left, right);
    tokens_.push_back(left + right);
    apply(pair, static_cast<int32_t>(tokens_.size()) - 1);
    put_changed_on_heap();
  }
  return merges;
}

}  // namespace

void VocabularyTrainer::add(std::string_view caption) {
  const std::string clean = clean_caption(caption);
  std::string_view rest = clean;
  for (std::string_view word = take_word(rest); !word.empty(); word = take_word(rest)) ++words_[std::string(word)];
}

std::unique_ptr<Tokenizer> VocabularyTrainer::train(int64_t tokens, int64_t length) const {
  check_input(tokens >= fixed_tokens && tokens <= 1'000'000, "a vocabulary of {} tokens: {} to 1000000 are possible", tokens, fixed_tokens);
  check_input(!words_.empty(), "no vocabulary can be learnt: the captions hold no word");
  BpeVocabulary vocabulary;
  vocabulary.merges = Learner(words_).merges(static_cast<size_t>(tokens - fixed_tokens));
  vocabulary.tokens = tokens_by_rule(vocabulary.merges);
  return std::make_unique<BpeTokenizer>(Bpe(std::move(vocabulary), "the learnt vocabulary", "itself"), length);
}

}  // namespace ermoe
