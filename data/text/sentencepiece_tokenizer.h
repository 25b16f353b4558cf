// A SentencePiece model as a tokenizer (Kudo and Richardson 2018, arXiv 1808.06226). Read data/text/tokenizer.h first.
#pragma once

#include "data/text/tokenizer.h"

#include <memory>
#include <string>

namespace ermoe {

/// Whether this build can read SentencePiece models.
bool has_sentencepiece();

/// The model cleans text itself: only bytes that are no UTF-8 are replaced before. Start, end and padding are the model's where it has
/// them (`bos_id`, `eos_id`, `pad_id`); those that it lacks get ids behind its own, in this order.
/// Throws `InputError` where the file is no model, and where this build has no SentencePiece.
std::unique_ptr<Tokenizer> open_sentencepiece(const std::string& path, int64_t length);

}  // namespace ermoe
