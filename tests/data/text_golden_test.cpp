// Captions as ids, against an independent model in Python (tests/golden/make_tokens.py): 200 strings that are easy to get wrong, a
// vocabulary that it learnt, and SentencePiece's own ids.
#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"
#include "data/text/bpe_trainer.h"
#include "data/text/caption.h"
#include "data/text/sentencepiece_tokenizer.h"
#include "data/text/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include <algorithm>

namespace ermoe::testing {
namespace {

constexpr int64_t width = 32;

std::string golden(const std::string& name) { return std::string(ERMOE_SOURCE_DIR) + "/tests/golden/text/" + name; }

std::string from_hex(const std::string& digits) {
  std::string bytes;
  for (size_t i = 0; i < digits.size(); i += 2) bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return bytes;
}

/// The string of a row: bytes in hexadecimal, or a text, perhaps so many times and something behind.
std::string text_of(const nlohmann::json& row) {
  if (row.contains("bytes")) return from_hex(row["bytes"]);
  std::string text;
  for (int64_t i = 0; i < row.value("times", 1); ++i) text += row["text"].get<std::string>();
  return text + row.value("tail", "");
}

std::string first_characters(const std::string& text, size_t most) {
  size_t at = 0;
  for (; at < text.size(); ++at)
    if ((static_cast<unsigned char>(text[at]) & 0xC0) != 0x80 && most-- == 0) break;
  return text.substr(0, at);
}

TEST(TextGolden, IdsOfNastyStrings) {
  const auto tokenizer = open_tokenizer(golden(""), width);
  EXPECT_EQ(tokenizer->vocabulary_size(), 514 + 600);
  EXPECT_EQ(tokenizer->start(), 1112);
  EXPECT_EQ(tokenizer->end(), 1113);
  int rows = 0;
  for (const auto& row : read_json(golden("ids.json"))) {
    const std::string text = text_of(row);
    EXPECT_EQ(first_characters(clean_caption(text), 60), row["clean"].get<std::string>()) << printable(text);
    EXPECT_EQ(tokenizer->encode(text), row["ids"].get<std::vector<int32_t>>()) << printable(text);
    ++rows;
  }
  EXPECT_EQ(rows, 246);
}

TEST(TextGolden, TrainerLearnsTheSameMerges) {
  VocabularyTrainer trainer;
  const std::string captions = read_file(golden("captions.txt"), 1 << 20);
  for (size_t at = 0; at < captions.size();) {
    const size_t end = captions.find('\n', at);
    trainer.add(std::string_view(captions).substr(at, end - at));
    at = end + 1;
  }
  const auto files = trainer.train(514 + 600, width)->files();
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].bytes, read_file(golden("vocab.json"), 1 << 20));
  EXPECT_EQ(files[1].bytes, read_file(golden("merges.txt"), 1 << 20));
}

TEST(TextGolden, SentencePieceGivesItsOwnIds) {
  if (!has_sentencepiece()) GTEST_SKIP() << "this build has no SentencePiece (libsentencepiece-dev)";
  const auto tokenizer = open_tokenizer(golden("tiny.model"), 300);
  EXPECT_EQ(tokenizer->start(), 1);
  EXPECT_EQ(tokenizer->end(), 2);
  EXPECT_EQ(tokenizer->pad(), 200) << "the model has no padding: it gets the id behind the model's own";
  EXPECT_EQ(tokenizer->vocabulary_size(), 201);
  for (const auto& row : read_json(golden("pieces.json"))) {
    auto ids = row["ids"].get<std::vector<int32_t>>();
    ids.insert(ids.begin(), tokenizer->start());
    ids.push_back(tokenizer->end());
    ids.resize(300, tokenizer->pad());
    EXPECT_EQ(tokenizer->encode(row["text"].get<std::string>()), ids) << row["text"];
  }
  const auto ids = tokenizer->encode("<s> a dog </s> runs");
  EXPECT_EQ(ids[static_cast<size_t>(std::ranges::find(ids, tokenizer->end()) - ids.begin()) + 1], tokenizer->pad())
      << "what stands in a caption does not end it";
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a brown dog runs")), "a brown dog runs");
}

TEST(TextGolden, SentencePieceModelsAreRefusedWhereTheyCannotBeRead) {
  if (has_sentencepiece()) GTEST_SKIP() << "this build has SentencePiece";
  try {
    open_tokenizer(golden("tiny.model"), width);
    FAIL();
  } catch (const InputError& fault) {
    EXPECT_NE(std::string(fault.what()).find("libsentencepiece-dev"), std::string::npos) << fault.what();
  }
}

}  // namespace
}  // namespace ermoe::testing
