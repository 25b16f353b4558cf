// Where a run's tokenizer comes from: a file that the user has, a vocabulary learnt from the training captions, or, once the run has begun,
// its own checkpoints, which hold the tokenizer's files beside the weights: a folder of one is all that a model needs.
#pragma once

#include "data/captions.h"
#include "data/text/tokenizer.h"
#include "tools/run_config.h"

#include <memory>
#include <string>

namespace ermoe {

/// Tokens that are learnt where text.vocabulary says nothing.
constexpr int64_t usual_vocabulary = 4096;

/// text.tokenizer; where that is empty a vocabulary of text.vocabulary tokens, learnt from the captions of `training` (null: there are
/// none). Fills in text.vocabulary and text.end_token. InputError where that fails, or where the settings say otherwise than the tokenizer.
std::shared_ptr<const Tokenizer> choose_tokenizer(RunConfig& config, const CaptionDataset* training, const WarnFn& warn);

/// The tokenizer that a checkpoint's folder holds. Throws InputError where it holds none, or another one than `config` says.
std::shared_ptr<const Tokenizer> saved_tokenizer(const std::string& folder, const RunConfig& config);

/// Fills in text.vocabulary and text.end_token where they are open; InputError where they are not the tokenizer's, which `source` names.
void settle_text(RunConfig& config, const Tokenizer& tokenizer, const std::string& source);

}  // namespace ermoe
