#include "tools/vocabulary.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/text/bpe_trainer.h"
#include "models/checkpoint_store.h"

#include <algorithm>
#include <filesystem>

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

/// The folder of the weights that the run starts from, where a tokenizer lies beside them; else empty.
std::string tokenizer_beside(const std::string& init) {
  if (init.empty()) return {};
  const std::filesystem::path weights(init);
  std::string folder = init.ends_with(".safetensors") ? weights.parent_path().string() : find_checkpoint(init, "latest").folder;
  if (folder.empty()) folder.push_back('.');
  for (const char* name : {"vocab.json", "tokenizer.json"})
    if (path_exists(folder + "/" + name)) return folder;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".model") return folder;
  return {};
}

/// Ids of the weights that the run starts from must mean the same words to it.
void require_same_words(const Tokenizer& tokenizer, const std::string& path, const std::string& beside, const CaptionDataset* captions,
                        int64_t context) {
  constexpr size_t enough = 1000;
  if (captions == nullptr) return;
  std::shared_ptr<const Tokenizer> other;
  try {
    other = open_tokenizer(beside, context);
  } catch (const InputError&) {
    return;  // whatever lies there, it numbers no words
  }
  const auto& all = captions->all_captions();
  for (size_t i = 0; i < std::min(all.size(), enough); ++i)
    check_input(tokenizer.encode(all[i]) == other->encode(all[i]),
                "text.tokenizer: {} numbers tokens otherwise than the one in {}, beside the weights of train.init, whose embeddings would "
                "belong to other words; without text.tokenizer that one is taken",
                path, beside);
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
  const std::string beside = tokenizer_beside(config.train.init), path = config.tokenizer.empty() ? beside : config.tokenizer;
  std::shared_ptr<const Tokenizer> tokenizer;
  if (path.empty()) {
    tokenizer = learn(config, training, warn);
    config.text.vocabulary = tokenizer->vocabulary_size();  // at most what was asked for
  } else {
    tokenizer = open_tokenizer(path, config.text.context);
    if (!config.tokenizer.empty() && !beside.empty()) require_same_words(*tokenizer, path, beside, training, config.text.context);
    if (config.tokenizer.empty()) config.text.vocabulary = tokenizer->vocabulary_size();  // what would have been learnt counts no more
    if (warn && config.tokenizer.empty()) warn(fmt::format("text.tokenizer: that of {}, whose weights the run starts from", path));
  }
  settle_text(config, *tokenizer, path.empty() ? "that was learnt" : path);
  return tokenizer;
}

std::shared_ptr<const Tokenizer> saved_tokenizer(const std::string& folder, const RunConfig& config) {
  std::shared_ptr<const Tokenizer> tokenizer = open_tokenizer(folder, config.text.context);
  RunConfig copy = config;
  settle_text(copy, *tokenizer, "of " + folder);
  return tokenizer;
}

}  // namespace ermoe
