// A vocabulary of CLIP's kind, learnt from captions: the most frequent pair of neighbours becomes a token, again and again.
// Read data/text/bpe.h first.
#pragma once

#include "data/text/tokenizer.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

namespace ermoe {

/// Collects words, then learns. The same captions in any order give the same vocabulary, on any machine.
class VocabularyTrainer {
 public:
  /// Counts the words of a caption, cleaned and split as `encode` will.
  void add(std::string_view caption);

  /// A tokenizer of at most `tokens` tokens for captions of `length` ids. Of pairs that occur equally often, the one with the lower left
  /// id is merged first, then the one with the lower right id. It has fewer tokens where no pair is left that occurs twice.
  /// Throws `InputError` where `tokens` is not 514 to 1,000,000, or no caption held a word.
  std::unique_ptr<Tokenizer> train(int64_t tokens, int64_t length) const;

 private:
  std::unordered_map<std::string, int64_t> words_;  // how often each word occurs
};

}  // namespace ermoe
