#include "tools/vocabulary.h"

#include "core/error.h"
#include "data/text/bpe_trainer.h"

namespace ermoe {
namespace {

std::shared_ptr<const Tokenizer> learn(const RunConfig& config, const CaptionDataset* training, const WarnFn& warn) {
  check_input(training != nullptr, "text.tokenizer: {} has no training captions to learn a vocabulary from", config.data.path);
  VocabularyTrainer trainer;
  for (const std::string& caption : training->all_captions()) trainer.add(caption);
  const int64_t wanted = config.text.vocabulary > 0 ? config.text.vocabulary : usual_vocabulary;
  std::shared_ptr<const Tokenizer> learnt = trainer.train(wanted, config.text.context);
  if (warn && config.text.vocabulary > learnt->vocabulary_size())
    warn(fmt::format("text.vocabulary {}: the {} training captions give {} tokens", wanted, training->all_captions().size(),
                     learnt->vocabulary_size()));
  return learnt;
}

}  // namespace

void settle_text(RunConfig& config, const Tokenizer& tokenizer, const std::string& source) {
  TextConfig& text = config.text;
  if (text.vocabulary == 0) text.vocabulary = tokenizer.vocabulary_size();
  check_input(text.vocabulary == tokenizer.vocabulary_size(), "text.vocabulary is {}, but the tokenizer {} has {} tokens", text.vocabulary,
              source, tokenizer.vocabulary_size());
  if (text.end_token < 0) text.end_token = tokenizer.end();
  check_input(text.end_token == tokenizer.end(), "text.end_token is {}, but the tokenizer {} ends captions with {}", text.end_token, source,
              tokenizer.end());
}

std::shared_ptr<const Tokenizer> choose_tokenizer(RunConfig& config, const CaptionDataset* training, const WarnFn& warn) {
  std::shared_ptr<const Tokenizer> tokenizer;
  if (config.tokenizer.empty()) {
    tokenizer = learn(config, training, warn);
    config.text.vocabulary = tokenizer->vocabulary_size();  // at most what was asked for
  } else {
    tokenizer = open_tokenizer(config.tokenizer, config.text.context);
  }
  settle_text(config, *tokenizer, config.tokenizer.empty() ? "that was learnt" : config.tokenizer);
  return tokenizer;
}

std::shared_ptr<const Tokenizer> saved_tokenizer(const std::string& folder, const RunConfig& config) {
  std::shared_ptr<const Tokenizer> tokenizer = open_tokenizer(folder, config.text.context);
  RunConfig copy = config;
  settle_text(copy, *tokenizer, "of " + folder);
  return tokenizer;
}

}  // namespace ermoe
