// SentencePiece's own library behind our interface, where the build has it. Read data/text/sentencepiece_tokenizer.h first.
#include "data/text/sentencepiece_tokenizer.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/text/caption.h"
#include "data/text/unicode.h"

#ifdef ERMOE_WITH_SENTENCEPIECE
#include <sentencepiece_processor.h>
#endif

namespace ermoe {

#ifdef ERMOE_WITH_SENTENCEPIECE

namespace {

using sentencepiece::SentencePieceProcessor;

constexpr size_t most_bytes = size_t{64} << 20;

struct Model {
  std::string bytes;  // the file's
  std::unique_ptr<SentencePieceProcessor> pieces;
};

class SentencePieceTokenizer final : public Tokenizer {
 public:
  /// Special tokens that the model lacks go behind its pieces.
  static std::unique_ptr<Tokenizer> make(Model model, int64_t length) {
    const SentencePieceProcessor& pieces = *model.pieces;
    int32_t next = pieces.GetPieceSize();
    const auto own_or_next = [&](int id) { return id >= 0 ? id : next++; };
    const Specials specials{own_or_next(pieces.bos_id()), own_or_next(pieces.eos_id()), own_or_next(pieces.pad_id())};
    return std::unique_ptr<Tokenizer>(new SentencePieceTokenizer(std::move(model), length, {specials, next}));
  }
  std::vector<TokenizerFile> files() const override { return {{"tokenizer.model", model_.bytes}}; }

 private:
  struct Ids {
    Specials specials;
    int64_t size;
  };

  SentencePieceTokenizer(Model model, int64_t length, Ids ids) : Tokenizer(length, ids.size, ids.specials), model_(std::move(model)) {}

  void append_ids(std::string_view text, size_t, std::vector<int32_t>& ids) const override {
    const std::string valid = valid_utf8(text, longest_caption);
    const auto status = model_.pieces->Encode(valid, &ids);
    check(status.ok(), "[SentencePiece] {}", status.ToString());
  }

  std::string spelled(std::span<const int32_t> ids) const override {
    std::vector<int> own;
    for (const int32_t id : ids)
      if (id < model_.pieces->GetPieceSize()) own.push_back(id);
    std::string text;
    const auto status = model_.pieces->Decode(own, &text);
    check(status.ok(), "[SentencePiece] {}", status.ToString());
    return text;
  }

  Model model_;
};

}  // namespace

bool has_sentencepiece() { return true; }

std::unique_ptr<Tokenizer> open_sentencepiece(const std::string& path, int64_t length) {
  Model model{read_file(path, most_bytes), std::make_unique<SentencePieceProcessor>()};
  // The library's own words name places in its source: nothing for a user.
  const bool sound = model.pieces->LoadFromSerializedProto(model.bytes).ok() && model.pieces->GetPieceSize() > 0;
  check_input(sound, "{} is no SentencePiece model, or a damaged one", path);
  return SentencePieceTokenizer::make(std::move(model), length);
}

#else

bool has_sentencepiece() { return false; }

std::unique_ptr<Tokenizer> open_sentencepiece(const std::string& path, int64_t) {
  fail_input("{} is a SentencePiece model, which this build cannot read: install libsentencepiece-dev and configure again", path);
}

#endif

}  // namespace ermoe
