// Captions through byte-level BPE. Read data/text/bpe_tokenizer.h first.
#include "data/text/bpe_tokenizer.h"

#include "data/text/caption.h"

#include <nlohmann/json.hpp>

namespace ermoe {

BpeTokenizer::BpeTokenizer(Bpe bpe, int64_t length)
    : Tokenizer(length, static_cast<int64_t>(bpe.vocabulary().tokens.size()), {bpe.start(), bpe.end(), 0}), bpe_(std::move(bpe)) {}

void BpeTokenizer::append_ids(std::string_view text, size_t most, std::vector<int32_t>& ids) const {
  const std::string clean = clean_caption(text);
  Bpe::Scratch scratch;
  std::string_view rest = clean;
  while (ids.size() < most) {
    const std::string_view word = take_word(rest);
    if (word.empty()) break;
    bpe_.append_ids(word, ids, scratch);
  }
}

std::string BpeTokenizer::spelled(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) text += bpe_.bytes_of(id);
  return text;
}

std::vector<TokenizerFile> BpeTokenizer::files() const {
  const BpeVocabulary& vocabulary = bpe_.vocabulary();
  std::string tokens = "{";
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id)
    tokens += (id == 0 ? "\"" : ", \"") + nlohmann::json(vocabulary.tokens[id]).dump().substr(1) + ": " + std::to_string(id);
  std::string merges = "#version: 0.2\n";
  for (const auto& [left, right] : vocabulary.merges) merges += left + " " + right + "\n";
  return {{"vocab.json", tokens + "}\n"}, {"merges.txt", merges}};
}

}  // namespace ermoe
