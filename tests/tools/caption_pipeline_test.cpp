// Which caption goes with which image, in training and evaluation, for any number of ranks and from any place on; where the vocabulary
// comes from, and what is refused.
#include "tools/caption_pipeline.h"

#include "core/error.h"
#include "data/text/bpe_trainer.h"
#include "models/config_rules.h"
#include "tests/bench.h"
#include "tests/tools/made_captions.h"
#include "tools/vocabulary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

namespace ermoe::testing {
namespace {

/// A pipeline over images with captions, and all that it said.
struct Opened {
  explicit Opened(RunConfig settings, int rank = 0, int world = 1, std::shared_ptr<const Tokenizer> tokenizer = nullptr)
      : config(std::move(settings)) {
    pipeline.emplace(
        config, bench.allocator, 2, [this](const std::string& text) { said.push_back(text); }, rank, world, std::move(tokenizer));
    pipeline->settle_on(bench.ctx, nullptr);
  }
  /// (B, W) ids of a batch, by row.
  static std::vector<std::vector<int32_t>> rows_of(const Tensor& tokens) {
    const std::vector<int32_t> all = to_vector<int32_t>(tokens);
    const auto W = static_cast<std::ptrdiff_t>(tokens.shape()[1]);
    std::vector<std::vector<int32_t>> rows;
    for (auto at = all.begin(); at != all.end(); at += W) rows.emplace_back(at, at + W);
    return rows;
  }
  std::vector<std::string> texts_of(const Tensor& tokens) const {
    std::vector<std::string> texts;
    for (const auto& row : rows_of(tokens)) texts.push_back(pipeline->tokenizer()->decode(row));
    return texts;
  }
  MicroBatch next() {
    const RngKey key = RngKey{9}.fold(static_cast<uint64_t>(steps++));
    return pipeline->next(bench.ctx, key, true);
  }

  RunConfig config;
  TestBench bench;
  std::vector<std::string> said;
  std::optional<CaptionPipeline> pipeline;
  int64_t steps = 0;
};

/// The images that a batch holds, told by their grey.
std::vector<int64_t> images_in(const Tensor& images) {
  const std::vector<double> values = to_doubles(images);
  const auto each = static_cast<size_t>(images.numel() / images.shape()[0]);
  std::vector<int64_t> found;
  for (size_t at = 0; at < values.size(); at += each)
    found.push_back(static_cast<int64_t>(std::lround((values[at] + 1) * 127.5 - 20)) / 12);
  return found;
}

template <typename Fn>
std::string refusal(const Fn& fn) {
  try {
    fn();
  } catch (const InputError& fault) {
    return fault.what();
  }
  return "accepted";
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

class CaptionPipelineTest : public ::testing::Test {
 protected:
  MadeCaptions made;
};

TEST_F(CaptionPipelineTest, FillsInWhatTheDataAndTheTokenizerKnow) {
  RunConfig config = made.config();
  config.model.image_size = config.model.channels = 0;
  config.text.vocabulary = 100000;
  Opened opened(config);
  EXPECT_EQ(opened.config.model.image_size, 8);
  EXPECT_EQ(opened.config.model.channels, 3);
  EXPECT_EQ(opened.pipeline->training_size(), 12);
  EXPECT_EQ(opened.pipeline->evaluation_size(), 4);
  const Tokenizer& tokenizer = *opened.pipeline->tokenizer();
  EXPECT_EQ(opened.config.text.vocabulary, tokenizer.vocabulary_size());
  EXPECT_EQ(opened.config.text.end_token, tokenizer.end());
  EXPECT_EQ(tokenizer.length(), 12);
  ASSERT_EQ(opened.said.size(), 1u);
  EXPECT_TRUE(holds(opened.said[0], "text.vocabulary 100000: the 24 training captions give")) << opened.said[0];
  VocabularyTrainer trainer;  // of the training captions alone
  for (int64_t i = 0; i < 12; ++i)
    for (const std::string& caption : MadeCaptions::captions_of(i)) trainer.add(caption);
  EXPECT_EQ(trainer.train(100000, 12)->files()[0].bytes, tokenizer.files()[0].bytes);
}

TEST_F(CaptionPipelineTest, EachImageComesWithOneOfItsCaptions) {
  RunConfig config = made.config();
  config.augment.flip = config.augment.resized_crop = true;
  Opened opened(config);
  opened.pipeline->seek({});
  EXPECT_EQ(opened.pipeline->batches_per_epoch(), 2);
  std::map<std::string, int> drawn;
  for (int64_t epoch = 0; epoch < 40; ++epoch) {
    std::set<int64_t> seen;
    for (int64_t step = 0; step < 2; ++step) {
      const MicroBatch batch = opened.next();
      EXPECT_FALSE(batch.targets.defined());
      EXPECT_EQ(batch.tokens.shape(), (Shape{6, 12}));
      const std::vector<int64_t> images = images_in(batch.images);
      const std::vector<std::string> texts = opened.texts_of(batch.tokens);
      for (size_t b = 0; b < images.size(); ++b) {
        const auto own = MadeCaptions::captions_of(images[b]);
        EXPECT_NE(std::ranges::find(own, texts[b]), own.end()) << "image " << images[b] << " came with \"" << texts[b] << "\"";
        drawn[texts[b]] += 1;
        seen.insert(images[b]);
      }
    }
    EXPECT_EQ(seen.size(), 12u);  // each image once an epoch
  }
  EXPECT_EQ(drawn.size(), 24u);
  for (const auto& [text, count] : drawn) EXPECT_GE(count, 4) << text;  // of 40, by three captions at most
}

TEST_F(CaptionPipelineTest, GoesOnFromAnyPlaceBitForBit) {
  RunConfig config = made.config();
  config.augment.flip = config.augment.resized_crop = true;
  Opened whole(config);
  whole.pipeline->seek({});
  for (int64_t i = 0; i < 3; ++i) whole.next();
  const Cursor at = whole.pipeline->cursor();
  EXPECT_EQ(at, (Cursor{1, 1}));
  Opened resumed(whole.config, 0, 1, whole.pipeline->tokenizer());
  resumed.pipeline->seek(at);
  resumed.steps = whole.steps;
  for (int64_t i = 0; i < 3; ++i) {
    const MicroBatch a = whole.next(), b = resumed.next();
    EXPECT_EQ(to_vector<float>(a.images), to_vector<float>(b.images));
    EXPECT_EQ(to_vector<int32_t>(a.tokens), to_vector<int32_t>(b.tokens));
  }
}

TEST_F(CaptionPipelineTest, RanksShareABatch) {
  Opened whole(made.config());
  whole.pipeline->seek({});
  std::vector<std::unique_ptr<Opened>> parts;
  for (int rank = 0; rank < 4; ++rank) {
    parts.push_back(std::make_unique<Opened>(made.config(), rank, 4));
    parts.back()->pipeline->seek({});
  }
  for (int64_t step = 0; step < 3; ++step) {
    const MicroBatch batch = whole.next();
    std::vector<int32_t> tokens;
    std::vector<int64_t> images;
    for (const auto& part : parts) {
      const MicroBatch own = part->next();
      for (const int32_t id : to_vector<int32_t>(own.tokens)) tokens.push_back(id);
      for (const int64_t image : images_in(own.images)) images.push_back(image);
    }
    EXPECT_EQ(tokens, to_vector<int32_t>(batch.tokens));
    EXPECT_EQ(images, images_in(batch.images));
  }
}

TEST_F(CaptionPipelineTest, EvaluationHasEachCaptionOnceWithItsImage) {
  for (const int world : {1, 3}) {
    std::map<int64_t, std::vector<std::string>> captions;
    std::vector<int64_t> images;
    for (int rank = 0; rank < world; ++rank) {
      Opened opened(made.config(), rank, world);
      opened.pipeline->for_each_evaluation_batch(opened.bench.ctx, 3, [&](const EvaluationBatch& batch) {
        if (batch.indices.empty()) return;
        const std::vector<int64_t> here = images_in(batch.input.images);
        for (size_t b = 0; b < here.size(); ++b) EXPECT_EQ(here[b], batch.indices[b] + 12);
        images.insert(images.end(), here.begin(), here.end());
        const std::vector<std::string> texts = opened.texts_of(batch.input.tokens);
        ASSERT_EQ(texts.size(), batch.owners.size());
        for (size_t c = 0; c < texts.size(); ++c) captions[batch.owners[c] + 12].push_back(texts[c]);
      });
    }
    std::ranges::sort(images);
    EXPECT_EQ(images, (std::vector<int64_t>{12, 13, 14, 15})) << world;
    for (int64_t i = 12; i < 16; ++i) EXPECT_EQ(captions[i], MadeCaptions::captions_of(i)) << world;
  }
}

TEST_F(CaptionPipelineTest, EvaluatesOnTrainingImagesWhereAsked) {
  RunConfig config = made.config();
  config.data.limit = 7;
  Opened opened(config);
  EXPECT_EQ(opened.pipeline->training_size(), 7);
  EXPECT_EQ(opened.pipeline->evaluation_size(), 4);
  opened.pipeline->evaluate_on_training();
  EXPECT_EQ(opened.pipeline->evaluation_size(), 7);
  config.data.limit = 0;
  config.data.overfit = 6;
  config.augment.flip = true;
  Opened few(config);
  EXPECT_EQ(few.pipeline->training_size(), 6);
  EXPECT_EQ(few.pipeline->evaluation_size(), 6);
  EXPECT_FALSE(few.config.augment.flip);
  EXPECT_EQ(few.pipeline->sample_name(2), opened.pipeline->sample_name(2));
}

TEST_F(CaptionPipelineTest, StatisticsSeeImagesWithTheirCaptions) {
  Opened opened(made.config());
  int64_t batches = 0;
  opened.pipeline->for_each_plain_batch(opened.bench.ctx, 5, 2, [&](const ModelInput& input) {
    const std::vector<int64_t> images = images_in(input.images);
    const std::vector<std::string> texts = opened.texts_of(input.tokens);
    for (size_t b = 0; b < images.size(); ++b) {
      const auto own = MadeCaptions::captions_of(images[b]);
      EXPECT_NE(std::ranges::find(own, texts[b]), own.end());
    }
    ++batches;
  });
  EXPECT_EQ(batches, 2);
}

TEST_F(CaptionPipelineTest, RefusesSettingsThatAreNotTheTokenizers) {
  Opened opened(made.config());
  const std::string folder = made / "vocabulary";
  write_tokenizer(*opened.pipeline->tokenizer(), folder);
  RunConfig config = made.config();
  config.tokenizer = folder;
  config.text.vocabulary = 0;
  Opened given(config);
  EXPECT_EQ(given.config.text.vocabulary, opened.config.text.vocabulary);
  config.text.vocabulary = 4000;
  EXPECT_EQ(refusal([&] { Opened again(config); }),
            "text.vocabulary is 4000, but the tokenizer " + folder + " has " + std::to_string(opened.config.text.vocabulary) + " tokens");
  config.text.vocabulary = 0;
  config.text.end_token = 5;
  EXPECT_TRUE(refusal([&] { Opened again(config); }).starts_with("text.end_token is 5, but the tokenizer " + folder));
  config = made.config();
  config.text.vocabulary = 4000;
  EXPECT_TRUE(holds(refusal([&] { Opened again(config, 0, 1, opened.pipeline->tokenizer()); }), "text.vocabulary is 4000"));
  EXPECT_TRUE(holds(refusal([&] { saved_tokenizer(folder, config); }), "of " + folder));
  made.folder().file("vocabulary/merges.txt", "#version: 0.2\nno merge\n");
  config.tokenizer = folder;
  EXPECT_TRUE(holds(refusal([&] { Opened again(config); }), folder));
  config.tokenizer = made / "nowhere";
  EXPECT_TRUE(holds(refusal([&] { Opened again(config); }), "nowhere"));
}

TEST_F(CaptionPipelineTest, RefusesWhatCannotBeTrained) {
  RunConfig config = made.config();
  config.train.batch = 13;
  EXPECT_TRUE(holds(refusal([&] {
                      Opened opened(config);
                      opened.pipeline->seek({});
                    }),
                    "train.batch is 13 in 1 micro-batches, but " + made.path() + " has 12 training images"));
  config = made.config();
  config.data.part = EvaluationPart::test;
  EXPECT_TRUE(holds(refusal([&] { Opened opened(config); }), "the part test is to evaluate, but it has no image"));
  const MadeCaptions none(4, 4);
  config = none.config();
  EXPECT_TRUE(holds(refusal([&] { Opened opened(config); }), "no training captions to learn a vocabulary from"));
}

}  // namespace
}  // namespace ermoe::testing
