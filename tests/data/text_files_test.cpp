// Files of vocabularies: every kind is read, and every wrong one is refused with a sentence that names the file and the fault.
#include "core/error.h"
#include "core/file_io.h"
#include "data/text/bpe.h"
#include "data/text/sentencepiece_tokenizer.h"
#include "data/text/tokenizer.h"
#include "tests/data/clip_merges.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace ermoe::testing {
namespace {

using nlohmann::json;
using Merges = std::vector<std::pair<std::string, std::string>>;

const Merges some_merges{{"d", "o"}, {"do", "g</w>"}, {"c", "a"}, {"ca", "t</w>"}};

json vocab_of(const Merges& merges) {
  json vocab = json::object();
  const auto tokens = tokens_by_rule(merges);
  for (size_t id = 0; id < tokens.size(); ++id) vocab[tokens[id]] = id;
  return vocab;
}

std::string lines_of(const Merges& merges) {
  std::string text = "#version: 0.2\n";
  for (const auto& [left, right] : merges) text += left + " " + right + "\n";
  return text;
}

json tokenizer_json(const Merges& merges) {
  json file{{"version", "1.0"}, {"added_tokens", json::array()}};
  json list = json::array();
  for (const auto& [left, right] : merges) list.push_back(left + " " + right);
  file["model"] = {{"type", "BPE"}, {"end_of_word_suffix", "</w>"}, {"vocab", vocab_of(merges)}, {"merges", list}};
  return file;
}

/// What opening says, or nothing where it succeeds.
std::string fault_of(const std::string& path) {
  try {
    open_tokenizer(path, 8);
    return {};
  } catch (const InputError& fault) {
    return fault.what();
  }
}

/// Expects the sentence to name the file and to hold `reason`, in one line.
void expect_fault(const std::string& path, const std::string& file, const std::string& reason) {
  const std::string fault = fault_of(path);
  EXPECT_NE(fault.find(file), std::string::npos) << fault;
  EXPECT_NE(fault.find(reason), std::string::npos) << "'" << fault << "' lacks '" << reason << "'";
  EXPECT_EQ(fault.find('\n'), std::string::npos) << fault;
  EXPECT_LT(fault.size(), 500u);
}

/// A folder with the two files of Hugging Face.
class TwoFiles {
 public:
  TwoFiles(const std::string& vocab, const std::string& merges) {
    write_file(folder_.file("vocab.json"), vocab);
    write_file(folder_.file("merges.txt"), merges);
  }
  explicit TwoFiles(const json& vocab, const Merges& merges = some_merges) : TwoFiles(vocab.dump(), lines_of(merges)) {}
  const std::string& path() const { return folder_.path(); }

 private:
  ScratchFolder folder_;
};

TEST(TokenizerFiles, AllKindsGiveTheSameIds) {
  const TwoFiles two(vocab_of(some_merges));
  const auto tokenizer = open_tokenizer(two.path(), 8);
  const std::vector<int32_t> ids{516, 513, 515, 320, 517, 0, 0, 0};
  EXPECT_EQ(tokenizer->encode("dog cat a")[1], 513);
  const ScratchFolder folder;
  json file = tokenizer_json(some_merges);
  write_file(folder.file("tokenizer.json"), file.dump());
  file["model"]["merges"] = json::array();
  for (const auto& [left, right] : some_merges) file["model"]["merges"].push_back({left, right});
  write_file(folder.file("newer.json"), file.dump());
  file["model"].erase("type");
  for (const std::string special : {"<|startoftext|>", "<|endoftext|>"}) {
    file["added_tokens"].push_back({{"id", file["model"]["vocab"][special]}, {"content", special}, {"special", true}});
    file["model"]["vocab"].erase(special);
  }
  write_file(folder.file("added.json"), file.dump());
  for (const std::string& path :
       {two.path(), folder.path(), folder.file("tokenizer.json"), folder.file("newer.json"), folder.file("added.json")})
    EXPECT_EQ(open_tokenizer(path, 8)->encode("dog cat a"), ids) << path;
}

TEST(TokenizerFiles, IdsAreTheFilesOwn) {
  json vocab = vocab_of(some_merges);
  vocab["<|startoftext|>"] = 0;
  vocab["!"] = 516;
  const auto tokenizer = open_tokenizer(TwoFiles(vocab).path(), 8);
  EXPECT_EQ(tokenizer->start(), 0);
  EXPECT_EQ(tokenizer->encode("!!")[1], 516);
}

TEST(TokenizerFiles, WindowsLineEndsAreRead) {
  const TwoFiles files(vocab_of({{"d", "o"}}).dump(), "#version: 0.2\r\nd o\r\n\r\n");
  EXPECT_EQ(fault_of(files.path()), "");
}

TEST(TokenizerFiles, WrongVocabulariesAreNamed) {
  const json good = vocab_of(some_merges);
  const auto fault = [&](json vocab, const std::string& reason) { expect_fault(TwoFiles(vocab).path(), "vocab.json", reason); };
  json vocab = good;
  vocab.erase("dog</w>");
  fault(vocab, "the id of");
  vocab["dog</w>"] = "513";
  fault(vocab, "the id of 'dog</w>' is \"513\"");
  vocab["dog</w>"] = 512;
  fault(vocab, "have the same id 512");
  vocab["dog</w>"] = -1;
  fault(vocab, "and 518 tokens have the ids 0 to 517");
  vocab["dog</w>"] = 1e300;
  fault(vocab, "the id of");
  vocab = good;
  vocab["zebra"] = 518;
  fault(vocab, "has 519 tokens, but the 4 merges of");
  vocab = good;
  vocab.erase("<|endoftext|>");
  vocab["zebra"] = good["<|endoftext|>"];
  fault(vocab, "lacks the token '<|endoftext|>'");
  vocab = good;
  vocab.erase("q</w>");
  vocab["zebra"] = good["q</w>"];
  fault(vocab, "lacks the token 'q</w>'");
  vocab = good;
  vocab.erase("dog</w>");
  vocab["zebra"] = good["dog</w>"];
  expect_fault(TwoFiles(vocab).path(), "merges.txt", "merge 2 makes 'dog</w>', which is no token of");
  vocab = good;
  vocab.erase("dog</w>");
  vocab[""] = good["dog</w>"];
  fault(vocab, "an empty token");
  fault(json::array({1, 2}), "no vocabulary");
  fault(json::object(), "has 0 tokens");
}

TEST(TokenizerFiles, DamagedTextIsNamed) {
  const std::string vocab = vocab_of(some_merges).dump(), merges = lines_of(some_merges);
  expect_fault(TwoFiles(vocab.substr(0, vocab.size() / 2), merges).path(), "vocab.json", "not JSON");
  expect_fault(TwoFiles("{\"a\": 0, \"a\": 1}", merges).path(), "vocab.json", "stands twice");
  expect_fault(TwoFiles("", merges).path(), "vocab.json", "not JSON");
  expect_fault(TwoFiles(vocab, "").path(), "vocab.json", "the 0 merges of");
  expect_fault(TwoFiles(vocab, "d o\ndo g</w>\nc a\ncat</w>\n").path(), "merges.txt", "merge 4: 'cat</w>' is not two tokens");
  expect_fault(TwoFiles(vocab, "d o\ndo g</w>\nc a\nc a t</w>\n").path(), "merges.txt", "merge 4: 'c a t</w>' is not two tokens");
  expect_fault(TwoFiles(vocab, "d o\ndo g</w>\nc a\nc \xff\n").path(), "merges.txt", "merge 4");
  expect_fault(TwoFiles(vocab, "do g</w>\nd o\nc a\nca t</w>\n").path(), "merges.txt", "'do' is no byte, and no merge before makes it");
  expect_fault(TwoFiles(vocab, "d o\nd o\nc a\nca t</w>\n").path(), "merges.txt", "merge 2 makes 'do', which is there already");
  expect_fault(TwoFiles(vocab, std::string((33 << 20), 'x')).path(), "merges.txt", "");
  expect_fault(TwoFiles("\"" + std::string((33 << 20), 'x') + "\"", merges).path(), "vocab.json", "");
}

TEST(TokenizerFiles, TokenizerJsonOfOtherKindsIsRefused) {
  const ScratchFolder folder;
  const std::string path = folder.file("tokenizer.json");
  const auto fault = [&](const json& file, const std::string& reason) {
    write_file(path, file.dump());
    expect_fault(path, "tokenizer.json", reason);
    expect_fault(folder.path(), "tokenizer.json", reason);
  };
  const json good = tokenizer_json(some_merges);
  json file = good;
  file["model"]["type"] = "WordPiece";
  fault(file, "model.type is \"WordPiece\", and only BPE is read");
  file = good;
  file["model"]["end_of_word_suffix"] = nullptr;
  fault(file, "model.end_of_word_suffix is null");
  file = good;
  file["model"]["merges"][1] = 5;
  fault(file, "merge 2 is not two tokens");
  file = good;
  file["model"]["merges"] = "d o";
  fault(file, "no list");
  file = good;
  file["added_tokens"] = {1};
  fault(file, "added_tokens");
  file = good;
  file["added_tokens"] = json::array({{{"id", 518}, {"content", "<cat-toy>"}}});
  fault(file, "has 519 tokens");
  file = good;
  file["model"].erase("vocab");
  fault(file, "no vocabulary");
  fault(json::object(), "has no model");
  fault(json::array(), "has no model");
  write_file(path, good.dump().substr(0, 3000));
  expect_fault(path, "tokenizer.json", "not JSON");
}

TEST(TokenizerFiles, ClipsListMustBeWhole) {
  const ScratchFolder folder;
  const std::string path = folder.file("bpe.txt");
  write_file(path, clip_like_merges(48'893));
  expect_fault(path, "bpe.txt", "has 48893 merges, and CLIP's vocabulary is made of 48894");
  write_file(path, clip_like_merges(48'894));
  EXPECT_EQ(fault_of(path), "");
  write_file(folder.file("bpe.txt.gz"), "\x1f\x8b\x08 and no more");
  EXPECT_NE(fault_of(folder.file("bpe.txt.gz")), "");
}

TEST(TokenizerFiles, PathsThatAreNoVocabulary) {
  const ScratchFolder folder;
  expect_fault(folder.file("none"), "none", "no such file");
  expect_fault(folder.path(), folder.path(), "holds no vocabulary");
  write_file(folder.file("a.png"), "x");
  expect_fault(folder.file("a.png"), "a.png", "no vocabulary by its name");
  write_file(folder.file("vocab.json"), "{}");
  expect_fault(folder.file("vocab.json"), "vocab.json", "the folder that holds it and merges.txt");
  expect_fault(folder.path(), folder.path(), "holds no vocabulary");
  write_file(folder.file("a.model"), "no model at all");
  expect_fault(folder.path(), "a.model", has_sentencepiece() ? "is no SentencePiece model" : "libsentencepiece-dev");
  write_file(folder.file("empty.model"), "");
  if (has_sentencepiece()) expect_fault(folder.file("empty.model"), "empty.model", "is no SentencePiece model");
  expect_fault(folder.path(), folder.path(), "several .model");
}

}  // namespace
}  // namespace ermoe::testing
