// Captions as ids: start, the text, end, padding. Which ids depends on the vocabulary: CLIP's or one trained here (byte-level BPE), or a
// SentencePiece model. docs/text.md says how, with an example.
//
// The feature of a caption is the text tower's output at its FIRST end token. With a causal mask nothing behind it matters, so neither
// does the padding: 0 as in OpenAI's and OpenCLIP's code (Hugging Face pads with the end token). In CLIP's vocabulary the end token is
// the largest id, and the first end the first maximum; other vocabularies promise only `end()`.
// Read next: data/text/bpe.h, data/text/bpe_trainer.h.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

/// One of the files that a vocabulary is kept in.
struct TokenizerFile {
  std::string name;
  std::string bytes;
};

/// Const members may be called from several threads at once, with any bytes: those that are no UTF-8 are read as U+FFFD, and what is past
/// 10,000 characters is not read. `check_caption` (data/text/caption.h) tells a user of either.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// W, the ids of one caption.
  int64_t length() const { return length_; }
  /// V: ids are 0 to V - 1, `start()`, `end()` and `pad()` among them.
  int64_t vocabulary_size() const { return size_; }
  int32_t start() const { return start_; }
  int32_t end() const { return end_; }
  int32_t pad() const { return pad_; }

  /// (W) ids of a caption: start, at most W - 2 of the text, the first `end()`, then `pad()`. Of a longer text the front is kept.
  /// Special tokens that stand in the text are read as any other characters: a caption must not end itself or start again.
  std::vector<int32_t> encode(std::string_view text) const;
  /// The same into `ids` (B, W), B = texts.size().
  void encode_batch(std::span<const std::string_view> texts, int32_t* ids) const;
  /// Whether `encode` leaves the end of a text out.
  bool cuts(std::string_view text) const;
  /// What the ids up to the first end spell, for people: cleaned text, blanks as the vocabulary has them. Throws `Error` for ids that
  /// are none of the vocabulary's.
  std::string decode(std::span<const int32_t> ids) const;

  /// What `open_tokenizer` reads the same vocabulary from, each file by its name in one folder.
  virtual std::vector<TokenizerFile> files() const = 0;

 protected:
  struct Specials {
    int32_t start, end, pad;
  };
  /// Throws `InputError` where `length` is not 3 to 4096.
  Tokenizer(int64_t length, int64_t size, Specials specials);

 private:
  /// Appends the first ids of a text, at least `most` where it has so many.
  virtual void append_ids(std::string_view text, size_t most, std::vector<int32_t>& ids) const = 0;
  /// The text of ids without start and end; it may hold any bytes and blanks at its ends.
  virtual std::string spelled(std::span<const int32_t> ids) const = 0;
  void write_ids(std::string_view text, int32_t* ids, std::vector<int32_t>& scratch) const;

  int64_t length_, size_;
  int32_t start_, end_, pad_;
};

/// The tokenizer in a file or a folder, for captions of `length` ids. Which kind it is:
///   a folder     `vocab.json` with `merges.txt`, or else `tokenizer.json`, or else one `*.model`
///   *.json       Hugging Face's `tokenizer.json`
///   *.txt[.gz]   OpenAI's list of merges, `bpe_simple_vocab_16e6.txt.gz`; ids by CLIP's rule
///   *.model      SentencePiece, where the build has it
/// Throws `InputError` that names the file and what is wrong with it.
std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path, int64_t length);

/// Writes `tokenizer.files()` into a folder, which is made where it is not there. Throws `Error` where that fails.
void write_tokenizer(const Tokenizer& tokenizer, const std::string& folder);

}  // namespace ermoe
