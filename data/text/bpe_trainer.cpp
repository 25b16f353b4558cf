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

/// What is known of a pair. `words` may name words that hold it no longer, and one twice.
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

class Learner {
 public:
  explicit Learner(const std::unordered_map<std::string, int64_t>& words);
  /// Up to `most` merges.
  std::vector<std::pair<std::string, std::string>> merges(size_t most);

 private:
  void count_pairs(int32_t word, int64_t sign, int32_t made);
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
    count_pairs(static_cast<int32_t>(words_.size()) - 1, 1, every_symbol);
  }
  put_changed_on_heap();
}

/// Adds or takes away (`sign`) what a word counts for its pairs, and notes that the word holds those with the new symbol `made`.
void Learner::count_pairs(int32_t word, int64_t sign, int32_t made) {
  const Word& w = words_[static_cast<size_t>(word)];
  for (size_t i = 0; i + 1 < w.symbols.size(); ++i) {
    const Pair pair{w.symbols[i], w.symbols[i + 1]};
    PairState& state = pairs_[pair];
    state.count += sign * w.count;
    if (!state.changed) changed_.push_back(pair);
    state.changed = true;
    if (sign > 0 && (made == every_symbol || pair.left == made || pair.right == made)) state.words.push_back(word);
  }
}

/// Replaces the pair by the symbol `made` in every word, left to right.
void Learner::apply(Pair pair, int32_t made) {
  const std::vector<int32_t> touched = std::move(pairs_[pair].words);
  for (const int32_t index : touched) {
    std::vector<int32_t>& symbols = words_[static_cast<size_t>(index)].symbols;
    const auto begins_pair = [&](size_t i) { return i + 1 < symbols.size() && Pair{symbols[i], symbols[i + 1]} == pair; };
    size_t first = 0;
    while (first + 1 < symbols.size() && !begins_pair(first)) ++first;
    if (!begins_pair(first)) continue;
    count_pairs(index, -1, made);
    size_t kept = first;
    for (size_t i = first; i < symbols.size(); ++i) {
      const bool joins = begins_pair(i);
      symbols[kept++] = joins ? made : symbols[i];
      if (joins) ++i;
    }
    symbols.resize(kept);
    count_pairs(index, 1, made);
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
