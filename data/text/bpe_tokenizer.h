// A tokenizer of CLIP's kind: cleaning, CLIP's pattern, byte-level BPE. Read data/text/tokenizer.h and data/text/bpe.h first.
#pragma once

#include "data/text/bpe.h"
#include "data/text/tokenizer.h"

namespace ermoe {

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(Bpe bpe, int64_t length);
  /// `vocab.json` and `merges.txt`, as Hugging Face has them.
  std::vector<TokenizerFile> files() const override;

 private:
  void append_ids(std::string_view text, size_t most, std::vector<int32_t>& ids) const override;
  std::string spelled(std::span<const int32_t> ids) const override;

  Bpe bpe_;
};

}  // namespace ermoe
