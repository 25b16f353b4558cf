// What all tokenizers share, and which kind a path is. Read data/text/tokenizer.h first.
#include "data/text/tokenizer.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/file_tree.h"
#include "data/text/bpe_files.h"
#include "data/text/bpe_tokenizer.h"
#include "data/text/sentencepiece_tokenizer.h"
#include "data/text/unicode.h"

#include <algorithm>
#include <filesystem>
#include <limits>

namespace ermoe {
namespace {

namespace fs = std::filesystem;

/// The one `*.model` in a folder; empty where there is none.
std::string model_in(const fs::path& folder) {
  std::string found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".model") continue;
    check_input(found.empty(), "{} holds several .model files: name one of them", folder.string());
    found = entry.path().string();
  }
  return found;
}

std::unique_ptr<Tokenizer> open_folder_of_tokenizer(const fs::path& folder, int64_t length) {
  const std::string vocab = folder / "vocab.json", merges = folder / "merges.txt", json = folder / "tokenizer.json";
  if (path_exists(vocab) && path_exists(merges)) return std::make_unique<BpeTokenizer>(read_vocab_and_merges(vocab, merges), length);
  if (path_exists(json)) return std::make_unique<BpeTokenizer>(read_tokenizer_json(json), length);
  if (const std::string model = model_in(folder); !model.empty()) return open_sentencepiece(model, length);
  fail_input("{} holds no vocabulary: neither vocab.json with merges.txt, nor tokenizer.json, nor a .model", folder.string());
}

}  // namespace

Tokenizer::Tokenizer(int64_t length, int64_t size, Specials specials)
    : length_(length), size_(size), start_(specials.start), end_(specials.end), pad_(specials.pad) {
  check_input(length >= 3 && length <= 4096, "captions of {} tokens: 3 to 4096 are possible, start and end among them", length);
  check(size <= std::numeric_limits<int32_t>::max(), "[Tokenizer] {} tokens", size);
}

void Tokenizer::write_ids(std::string_view text, int32_t* ids, std::vector<int32_t>& scratch) const {
  scratch.clear();
  const auto most = static_cast<size_t>(length_ - 2);
  append_ids(text, most, scratch);
  scratch.resize(std::min(scratch.size(), most));
  int32_t* const last = ids + length_;
  *ids++ = start_;
  ids = std::ranges::copy(scratch, ids).out;
  *ids++ = end_;
  std::fill(ids, last, pad_);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids(static_cast<size_t>(length_)), scratch;
  write_ids(text, ids.data(), scratch);
  return ids;
}

void Tokenizer::encode_batch(std::span<const std::string_view> texts, int32_t* ids) const {
  std::vector<int32_t> scratch;
  for (const std::string_view text : texts) {
    write_ids(text, ids, scratch);
    ids += length_;
  }
}

bool Tokenizer::cuts(std::string_view text) const {
  std::vector<int32_t> ids;
  append_ids(text, static_cast<size_t>(length_ - 1), ids);
  return ids.size() > static_cast<size_t>(length_ - 2);
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::vector<int32_t> own;
  for (const int32_t id : ids) {
    check(id >= 0 && id < size_, "[Tokenizer::decode] id {} of {} tokens", id, size_);
    if (id == end_) break;
    if (id != start_) own.push_back(id);
  }
  const std::string text = spelled(own);
  std::string valid = valid_utf8(text, text.size());
  while (valid.ends_with(' ')) valid.pop_back();
  return valid;
}

std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path, int64_t length) {
  check_input(path_exists(path), "{}: there is no such file or folder, and a vocabulary was expected", path);
  if (fs::is_directory(path)) return open_folder_of_tokenizer(path, length);
  const std::string name = lower(base_name(path));
  if (name == "vocab.json") {
    fail_input("{} is one of two files: give the folder that holds it and merges.txt", path);
  }
  if (name.ends_with(".json")) return std::make_unique<BpeTokenizer>(read_tokenizer_json(path), length);
  if (name.ends_with(".txt") || name.ends_with(".txt.gz")) return std::make_unique<BpeTokenizer>(read_clip_merges(path), length);
  if (name.ends_with(".model")) return open_sentencepiece(path, length);
  fail_input("{} is no vocabulary by its name: a folder, .json, .txt, .txt.gz and .model are", path);
}

void write_tokenizer(const Tokenizer& tokenizer, const std::string& folder) {
  std::error_code fault;
  fs::create_directories(folder, fault);
  check(!fault, "{} cannot be made: {}", folder, fault.message());
  for (const TokenizerFile& file : tokenizer.files()) write_file((fs::path(folder) / file.name).string(), file.bytes);
}

}  // namespace ermoe
