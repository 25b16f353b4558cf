// The files in which vocabularies of CLIP's kind come. Read data/text/bpe.h first.
#pragma once

#include "data/text/bpe.h"

#include <string>

namespace ermoe {

/// Hugging Face's two files. Every one throws `InputError` naming the file and what is wrong.
Bpe read_vocab_and_merges(const std::string& vocab_path, const std::string& merges_path);

/// Hugging Face's `tokenizer.json`; of what it says, `model` and `added_tokens` are read: the rest is CLIP's.
Bpe read_tokenizer_json(const std::string& path);

/// OpenAI's list of merges, plain or gzip: the first 48,894 count, ids are by CLIP's rule.
Bpe read_clip_merges(const std::string& path);

}  // namespace ermoe
