// Ids by CLIP's rule with its true numbers, what a tokenizer promises whatever the text is, and a vocabulary learnt from captions.
#include "core/error.h"
#include "core/file_io.h"
#include "data/text/bpe_files.h"
#include "data/text/bpe_tokenizer.h"
#include "data/text/bpe_trainer.h"
#include "data/text/tokenizer.h"
#include "tests/data/clip_merges.h"
#include "tests/data/gzip_writer.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace ermoe::testing {
namespace {

using Ids = std::vector<int32_t>;

/// A vocabulary learnt from some captions.
std::unique_ptr<Tokenizer> learnt(const std::vector<std::string>& captions, int64_t tokens, int64_t length) {
  VocabularyTrainer trainer;
  for (const std::string& caption : captions) trainer.add(caption);
  return trainer.train(tokens, length);
}

TEST(Bpe, HasClipsIds) {
  const ScratchFolder folder;
  const std::string path = folder.file("bpe_simple_vocab_16e6.txt.gz");
  write_file(path, gzip(clip_like_merges(50'000)));
  const auto tokenizer = open_tokenizer(path, 77);
  EXPECT_EQ(tokenizer->length(), 77);
  EXPECT_EQ(tokenizer->vocabulary_size(), 49408);
  EXPECT_EQ(tokenizer->start(), 49406);
  EXPECT_EQ(tokenizer->end(), 49407);
  EXPECT_EQ(tokenizer->pad(), 0);
  Ids ids = tokenizer->encode("! a B 1 ~");
  EXPECT_EQ(ids.size(), 77u);
  ids.resize(8);
  EXPECT_EQ(ids, (Ids{49406, 256, 320, 321, 272, 349, 49407, 0})) << "'!' is 0 and 'a' 64; at a word's end 256 more";
}

/// Merges of what the letters a, b and c and merges before make, drawn at random.
std::vector<std::pair<std::string, std::string>> random_merges(std::mt19937& random, size_t count) {
  std::vector<std::string> inner{"a", "b", "c"}, last{"a</w>", "b</w>", "c</w>"};
  std::vector<std::pair<std::string, std::string>> merges;
  for (size_t tries = 0; merges.size() < count && tries < 10 * count; ++tries) {
    std::vector<std::string>& right = random() % 3 == 0 ? last : inner;
    const std::pair merge{inner[random() % inner.size()], right[random() % right.size()]};
    const std::string made = merge.first + merge.second;
    if (std::ranges::find(right, made) != right.end()) continue;
    merges.push_back(merge);
    right.push_back(made);
  }
  return merges;
}

TEST(Bpe, DoesAsOneMergeAfterTheOther) {
  std::mt19937 random(17);
  for (int trial = 0; trial < 300; ++trial) {
    const auto merges = random_merges(random, 1 + random() % 20);
    const Bpe bpe({tokens_by_rule(merges), merges}, "tokens", "merges");
    Bpe::Scratch scratch;
    for (int word = 0; word < 20; ++word) {
      std::string text;
      std::vector<std::string> symbols;
      for (unsigned letters = 1 + random() % 12; letters > 0; --letters) text += static_cast<char>('a' + random() % 3);
      for (const char letter : text) symbols.emplace_back(1, letter);
      symbols.back() += "</w>";
      for (const auto& [left, right] : merges)
        for (size_t i = 0; i + 1 < symbols.size(); ++i)
          if (symbols[i] == left && symbols[i + 1] == right) {
            symbols[i] += symbols[i + 1];
            symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(i) + 1);
          }
      Ids ids;
      bpe.append_ids(text, ids, scratch);
      std::vector<std::string> tokens;
      for (const int32_t id : ids) tokens.push_back(bpe.vocabulary().tokens[static_cast<size_t>(id)]);
      ASSERT_EQ(tokens, symbols) << text;
    }
  }
}

TEST(Bpe, KeepsStartAndEndWhateverTheText) {
  const auto tokenizer = learnt({"two dogs run", "two dogs"}, 520, 6);
  EXPECT_EQ(tokenizer->encode(""), (Ids{tokenizer->start(), tokenizer->end(), 0, 0, 0, 0}));
  std::mt19937 random(3);
  for (int trial = 0; trial < 2000; ++trial) {
    std::string bytes(random() % 30, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    const Ids ids = tokenizer->encode(trial % 2 == 0 ? bytes : bytes + "<|endoftext|> <|startoftext|>");
    EXPECT_EQ(ids.size(), 6u);
    EXPECT_EQ(ids[0], tokenizer->start());
    EXPECT_EQ(std::ranges::count(ids, tokenizer->start()), 1);
    EXPECT_EQ(std::ranges::count(ids, tokenizer->end()), 1);
    EXPECT_TRUE(std::ranges::all_of(ids, [&](int32_t id) { return id >= 0 && id < tokenizer->vocabulary_size(); }));
  }
}

TEST(Bpe, BatchIsItsRows) {
  const auto tokenizer = learnt({"two dogs run", "two dogs"}, 520, 9);
  const std::vector<std::string_view> texts{"two dogs", "", "a much longer caption than that"};
  Ids batch(27), rows;
  tokenizer->encode_batch(texts, batch.data());
  for (const std::string_view text : texts)
    for (const int32_t id : tokenizer->encode(text)) rows.push_back(id);
  EXPECT_EQ(batch, rows);
}

TEST(Bpe, SaysWhetherATextIsCut) {
  const auto tokenizer = learnt({"two dogs run", "two dogs"}, 520, 6);  // four ids of the text
  EXPECT_FALSE(tokenizer->cuts(""));
  EXPECT_FALSE(tokenizer->cuts("1234"));
  EXPECT_FALSE(tokenizer->cuts("  1234  ")) << "blanks at the end are no ids";
  EXPECT_TRUE(tokenizer->cuts("12345"));
  EXPECT_TRUE(tokenizer->cuts("abcdefghijkl")) << "one word of many ids";
}

TEST(Bpe, DecodesForPeople) {
  const auto tokenizer = learnt({"two dogs run", "two dogs"}, 520, 77);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("Two DOGS, a café & 你好!")), "two dogs , a café & 你好 !");
  EXPECT_EQ(tokenizer->decode(Ids{}), "");
  EXPECT_THROW(tokenizer->decode(Ids{520}), Error);
  EXPECT_THROW(tokenizer->decode(Ids{-1}), Error);
}

TEST(Bpe, LengthsHaveBounds) {
  EXPECT_NO_THROW(learnt({"a a"}, 514, 3));
  EXPECT_THROW(learnt({"a a"}, 514, 2), InputError);
  EXPECT_THROW(learnt({"a a"}, 514, 4097), InputError);
}

TEST(VocabularyTrainer, MergesTheMostFrequentPairAndOfEqualsTheLowestIds) {
  const auto files = learnt({"ab ab ab", "cd cd", "xy"}, 600, 8)->files();
  EXPECT_EQ(files[1].bytes, "#version: 0.2\na b</w>\nc d</w>\n") << "xy occurs once: no token";
  EXPECT_EQ(learnt({"cd ab cd ab"}, 600, 8)->files()[1].bytes, "#version: 0.2\na b</w>\nc d</w>\n");
  EXPECT_EQ(learnt({"aaaa aaaa"}, 600, 8)->files()[1].bytes, "#version: 0.2\na a\na a</w>\naa aa</w>\n") << "left to right";
}

TEST(VocabularyTrainer, OrderOfCaptionsDoesNotMatter) {
  std::vector<std::string> captions;
  std::mt19937 random(9);
  for (int i = 0; i < 300; ++i) {
    std::string caption;
    for (int word = 0; word < 6; ++word) {
      for (unsigned letters = 1 + random() % 5; letters > 0; --letters) caption += static_cast<char>('a' + random() % 4);
      caption += ' ';
    }
    captions.push_back(caption);
  }
  const auto first = learnt(captions, 700, 16);
  std::ranges::reverse(captions);
  const auto second = learnt(captions, 700, 16);
  EXPECT_EQ(first->files()[1].bytes, second->files()[1].bytes);
  EXPECT_EQ(first->vocabulary_size(), 700);
}

TEST(VocabularyTrainer, RefusesWhatCannotBe) {
  EXPECT_THROW(learnt({"a dog"}, 513, 8), InputError);
  EXPECT_THROW(learnt({"a dog"}, 1'000'001, 8), InputError);
  EXPECT_THROW(learnt({}, 600, 8), InputError);
  EXPECT_THROW(learnt({" ", ""}, 600, 8), InputError);
}

TEST(Tokenizer, ComesBackFromItsFiles) {
  const ScratchFolder folder;
  const auto tokenizer = learnt({"two \"dogs\" \\ run", "two \"dogs\" \\ run", "über über 你好 你好"}, 600, 12);
  write_tokenizer(*tokenizer, folder.file("new/vocabulary"));
  const auto again = open_tokenizer(folder.file("new/vocabulary"), 12);
  EXPECT_EQ(again->vocabulary_size(), tokenizer->vocabulary_size());
  for (const char* text : {"two \"dogs\" run", "über 你好", "\\ \" #version"}) EXPECT_EQ(again->encode(text), tokenizer->encode(text));
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(again->files()[i].bytes, tokenizer->files()[i].bytes);
}

}  // namespace
}  // namespace ermoe::testing
