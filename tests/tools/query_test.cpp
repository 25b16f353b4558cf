// Searching with words: what is refused, what is found whatever the batch, what a broken image costs, and the sheet of it.
#include "tools/query.h"

#include "core/error.h"
#include "data/encode_png.h"
#include "data/image_files.h"
#include "data/text/bpe_trainer.h"
#include "tests/tools/temp_folder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>

namespace ermoe {
namespace {

using testing::TempFolder;

std::string fault_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const InputError& fault) {
    return fault.what();
  }
  return "";
}

std::unique_ptr<Tokenizer> small_tokenizer() {
  VocabularyTrainer trainer;
  for (const char* text : {"a red square", "a green square", "a blue square", "red"}) trainer.add(text);
  return trainer.train(540, 8);
}

/// Two blocks a tower, some with experts, with random weights.
DualConfig small_config(const Tokenizer& tokenizer) {
  DualConfig c;
  c.image.image_size = 8;
  c.image.patch = 4;
  c.image.width = 16;
  c.image.depth = 2;
  c.image.heads = 2;
  c.image.moe.experts = 4;
  c.image.moe.hidden = 8;
  c.text.vocabulary = tokenizer.vocabulary_size();
  c.text.end_token = tokenizer.end();
  c.text.context = tokenizer.length();
  c.text.width = 16;
  c.text.depth = 1;
  c.text.heads = 2;
  c.retrieval.projection = 6;
  return c;
}

Image plain_image(uint8_t red, uint8_t green, uint8_t blue) {
  Image image{.height = 20, .width = 16, .channels = 3, .pixels = {}};
  for (int i = 0; i < 320; ++i) image.pixels.insert(image.pixels.end(), {red, green, blue});
  return image;
}

class Query : public ::testing::Test {
 protected:
  Query() {
    model_.allocate(engine_.ctx, DType::f32);
    model_.init(engine_.ctx, RngKey{5});
    model_.refresh(engine_.ctx);
    config_.model = model_.config().image;
    config_.data.mean = {0.5, 0.5, 0.5};
    config_.data.std = {0.5, 0.5, 0.5};
    for (int i = 0; i < 7; ++i)
      folder_.file("images/" + std::to_string(i) + ".png",
                   encode_png(plain_image(static_cast<uint8_t>(40 * i), static_cast<uint8_t>(255 - 30 * i), static_cast<uint8_t>(i * i))));
  }
  std::unique_ptr<ImageDataset> images() const { return open_image_files({folder_ / "images"}); }
  Searcher searcher(int64_t batch) {
    config_.train.eval_batch = batch;
    return {
        .engine = engine_, .model = model_, .tokenizer = *tokenizer_, .config = config_, .threads = 1, .note = [this](const auto& text) {
          notes_.push_back(text);
        }};
  }

  TempFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_ = small_tokenizer();
  Engine engine_{1, 0, DeviceChoice::cpu};
  DualEncoder model_{small_config(*tokenizer_)};
  RunConfig config_;
  std::vector<std::string> notes_;
};

TEST(CheckWords, NamesWhatCannotBeSearchedFor) {
  const auto fault = [](const std::string& words) { return fault_of([&] { check_words(words, "--query"); }); };
  EXPECT_EQ(fault("a dog"), "");
  EXPECT_EQ(fault(std::string(9999, 'x')), "");
  EXPECT_EQ(fault(""), "--query is empty");
  EXPECT_EQ(fault(" \n"), "--query has nothing but blanks");
  EXPECT_EQ(fault("ab\xff"), "--query has bytes that are no UTF-8, from byte 2 on");
  EXPECT_EQ(fault(std::string(10000, 'x')), "--query has 10000 characters, and 9999 are the most");
  EXPECT_EQ(fault(std::string(20000, 'x')), "--query has 20000 characters, and 10000 are the most");
}

TEST(CaptionsFile, IsOneALine) {
  const TempFolder folder;
  const std::string path = folder.file("c.txt", "\xef\xbb\xbf a dog \r\n\n\ttwo cats, \"here\"\nlast");
  EXPECT_EQ(read_captions_file(path), (std::vector<std::string>{"a dog", "two cats, \"here\"", "last"}));
  const auto fault = [&](const std::string& text) { return fault_of([&] { read_captions_file(folder.file("c.txt", text)); }); };
  EXPECT_EQ(fault(" \n\n"), path + ": holds no caption; one a line is expected");
  EXPECT_EQ(fault("good\n\nb\xff\n"), path + ", line 3 has bytes that are no UTF-8, from byte 1 on");
  EXPECT_NE(fault_of([&] { read_captions_file(folder / "nowhere"); }), "");
}

TEST(CaptionsFile, HasAMillionCaptionsAtMost) {
  const TempFolder folder;
  std::string text;
  for (int i = 0; i < 1'000'000; ++i) text += "a\n\n";  // empty lines are none
  const std::string path = folder.file("c.txt", text);
  EXPECT_EQ(read_captions_file(path).size(), 1'000'000u);
  folder.file("c.txt", text + "b");
  EXPECT_EQ(fault_of([&] { read_captions_file(path); }), path + ": holds more than 1000000 captions, and so many are the most");
}

TEST_F(Query, FindsTheSameWhateverTheBatch) {
  const std::vector<std::string> queries{"a red square", "green"};
  const Found one = find_images(searcher(1), queries, *images(), 5), all = find_images(searcher(64), queries, *images(), 5);
  ASSERT_EQ(all.matches.size(), 2u);
  for (size_t q = 0; q < 2; ++q) {
    ASSERT_EQ(all.matches[q].size(), 5u);
    for (size_t k = 0; k < 5; ++k) {
      EXPECT_EQ(one.matches[q][k].index, all.matches[q][k].index);
      EXPECT_NEAR(one.matches[q][k].score, all.matches[q][k].score, 1e-5);
    }
    EXPECT_TRUE(std::ranges::is_sorted(all.matches[q], std::ranges::greater{}, &Match::score));
  }
  EXPECT_EQ(all.unread, 0);
  EXPECT_TRUE(notes_.empty());
}

TEST_F(Query, BothDirectionsHaveTheSameScores) {
  const std::vector<std::string> texts{"a red square", "green", "blue and more"};
  const Found found = find_images(searcher(3), texts, *images(), 100);
  std::vector<int64_t> seen;
  EXPECT_EQ(find_captions(searcher(3), texts, *images(), 100,
                          [&](int64_t image, const std::vector<Match>& captions) {
                            seen.push_back(image);
                            ASSERT_EQ(captions.size(), 3u);
                            for (const Match& caption : captions) {
                              const auto& list = found.matches[static_cast<size_t>(caption.index)];
                              EXPECT_EQ(std::ranges::find(list, image, &Match::index)->score, caption.score);
                            }
                          }),
            0);
  EXPECT_EQ(seen, (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6}));
}

TEST_F(Query, ABrokenImageIsNamedAndCostsOnlyItself) {
  const Found whole = find_images(searcher(3), {"red"}, *images(), 100);
  folder_.file("images/35.png", "no image");  // among the others: rows move up behind it
  const auto more = images();
  const Found found = find_images(searcher(3), {"red"}, *more, 100);
  EXPECT_EQ(found.unread, 1);
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_NE(notes_[0].find("35.png"), std::string::npos);
  ASSERT_EQ(found.matches[0].size(), 7u);
  const auto before = images();
  for (size_t k = 0; k < 7; ++k) {
    const int64_t then = whole.matches[0][k].index;
    EXPECT_EQ(found.matches[0][k].index, then < 4 ? then : then + 1);
  }
}

TEST_F(Query, WithoutAReadableImageNothingIsFound) {
  const std::string path = folder_.file("broken.png", "no image");
  const auto broken = open_image_files({path});
  const Found found = find_images(searcher(3), {"red"}, *broken, 3);
  EXPECT_EQ(found.unread, 1);
  EXPECT_TRUE(found.matches.at(0).empty());
  const FoundSheet made = sheet_of({"red"}, found, *broken, "", {});
  EXPECT_NE(contact_sheet_page(made.sheet).find("No image could be read."), std::string::npos);
}

TEST_F(Query, ALongTextIsCutAndANoteSaysSo) {
  text_features(searcher(3), {"123456", "red"});
  EXPECT_TRUE(notes_.empty());
  const Tensor cut = text_features(searcher(3), {"1234567 and more"}), front = text_features(searcher(3), {"123456"});
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_EQ(notes_[0], "\"1234567 and more\" is longer than the 8 tokens that the model reads: its end is not searched for");
  for (int64_t p = 0; p < 6; ++p) EXPECT_EQ(cut.data<float>()[p], front.data<float>()[p]);
}

TEST_F(Query, LongTextsAreCountedInOneNote) {
  text_features(searcher(3), {"red", "1234567 and more", "blue", "7654321 and more", "0000000 and more"});
  EXPECT_EQ(notes_, std::vector<std::string>{"\"1234567 and more\" and 2 more are longer than the 8 tokens that the model reads: "
                                             "their ends are not searched for"});
}

TEST_F(Query, ScoresThatAreNoNumbersAreTold) {
  for (const Parameter* p : parameters_of(model_.image())) p->value.data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  find_images(searcher(3), {"red", "green"}, *images(), 3);
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_NE(notes_[0].find("not numbers"), std::string::npos);
}

TEST_F(Query, TheSheetReadsEachPictureOnceAndSaysWhatIsGone) {
  const auto set = images();
  const std::vector<std::string> queries{"red", "green"};
  const Found found = find_images(searcher(3), queries, *set, 7);
  std::filesystem::remove(folder_ / "images/3.png");
  std::vector<std::string> notes;
  const FoundSheet made = sheet_of(queries, found, *set, "source", [&](const std::string& text) { notes.push_back(text); });
  EXPECT_EQ(made.unread, 1);
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("3.png"), std::string::npos);
  ASSERT_EQ(made.sheet.sections.size(), 2u);
  for (const SheetSection& section : made.sheet.sections) {
    ASSERT_EQ(section.images.size(), 7u);
    for (const SheetImage& image : section.images) EXPECT_EQ(image.picture.empty(), image.name.ends_with("3.png"));
  }
}

}  // namespace
}  // namespace ermoe
