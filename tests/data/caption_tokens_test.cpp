// Captions as ids: what was encoded is what comes out, and which caption a step takes.
#include "data/caption_tokens.h"

#include "tests/data/caption_fixtures.h"

#include <array>
#include <numeric>

namespace ermoe {
namespace {

class CaptionIds : public testing::CaptionTest {
 protected:
  void SetUp() override {
    std::string table = "image,caption\n";
    for (int i = 0; i < 6; ++i) {
      put_image(fmt::format("{}.ppm", i));
      for (int k = 0; k <= i % 5; ++k)
        table += fmt::format("{}.ppm,{}{}\n", i, i, std::string(static_cast<size_t>(k) + 1, static_cast<char>('a' + k)));
    }
    put("captions.csv", table);
    set = std::move(open(folder_path()).train);
  }
  /// Bytes as ids, then padding of 0 or of the last id.
  static std::vector<int32_t> encode(std::string_view text) {
    std::vector<int32_t> ids(8, text.size() % 2 == 0 ? 0 : static_cast<int32_t>(text.back()));
    std::copy(text.begin(), text.end(), ids.begin());
    return ids;
  }

  CachingAllocator host{make_host_source(), Fill::poison};
  std::unique_ptr<CaptionDataset> set;
};

TEST_F(CaptionIds, ComeOutAsTheyWereEncodedOnAnyNumberOfThreads) {
  for (const int threads : {1, 4}) {
    const CaptionTokens tokens(*set, 8, encode, threads);
    ASSERT_EQ(tokens.size(), std::ssize(set->all_captions()));
    std::vector<int32_t> row(8);
    for (int64_t c = 0; c < tokens.size(); ++c) {
      tokens.read(c, row.data());
      EXPECT_EQ(row, encode(set->all_captions()[static_cast<size_t>(c)])) << c;
    }
    // Of "0a" three ids are kept (the padding differs), of "0bb" two, of the others 5, 2 and 7.
    EXPECT_EQ(tokens.bytes(), (6 * 3 + 4 * 2 + 3 * 5 + 2 * 2 + 7) * sizeof(int32_t) + 17 * sizeof(int64_t));
  }
  const CaptionTokens same(*set, 8, [](std::string_view) { return std::vector<int32_t>(8, 7); });
  std::vector<int32_t> row(8);
  same.read(3, row.data());
  EXPECT_EQ(row, std::vector<int32_t>(8, 7));
}

TEST_F(CaptionIds, TheFirstCaptionThatIsRefusedIsNamed) {
  const auto refuse = [](std::string_view text) {
    check_input(text.front() < '3', "no word for {}", text);
    return encode(text);
  };
  EXPECT_EQ(testing::input_error([&] { CaptionTokens(*set, 8, refuse, 4); }), "no word for 3a");
  EXPECT_THROW(CaptionTokens(*set, 9, encode), Error);
}

TEST_F(CaptionIds, RandomCaptionsBelongToTheirSamplesAndDependOnNothingElse) {
  const CaptionTokens tokens(*set, 8, encode);
  const std::vector<int64_t> samples = {5, 0, 4, 4, 3}, alone = {4};
  const RngKey key = caption_key(1, 2);
  const Tensor batch = Tensor::empty(host, {5, 8}, DType::i32, "test"), one = Tensor::empty(host, {1, 8}, DType::i32, "test");
  tokens.fill_random(samples, key, batch);
  tokens.fill_random(alone, key, one);
  for (size_t b = 0; b < samples.size(); ++b) {
    const int32_t* row = batch.data<int32_t>() + b * 8;
    const auto captions = set->captions(samples[b]);
    const int64_t k = caption_index(key, samples[b], std::ssize(captions));
    const auto expected = encode(captions[static_cast<size_t>(k)]);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), row)) << b;
  }
  EXPECT_TRUE(std::equal(one.data<int32_t>(), one.data<int32_t>() + 8, batch.data<int32_t>() + 16));
  EXPECT_THROW(tokens.fill_random(alone, key, batch), Error);
  EXPECT_THROW(tokens.fill_random(std::vector<int64_t>{6}, key, one), std::out_of_range);
}

TEST_F(CaptionIds, InOrderForEvaluation) {
  const CaptionTokens tokens(*set, 8, encode);
  const Tensor batch = Tensor::empty(host, {4, 8}, DType::i32, "test");
  tokens.fill_in_order(2, batch);
  for (int64_t b = 0; b < 4; ++b) {
    const auto expected = encode(set->all_captions()[static_cast<size_t>(2 + b)]);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), batch.data<int32_t>() + b * 8)) << b;
  }
  EXPECT_EQ(set->owners(), (std::vector<int64_t>{0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5}));
  EXPECT_EQ(set->first_caption(3), 6);
  EXPECT_EQ(set->first_caption(6), 16);
  EXPECT_THROW(tokens.fill_in_order(13, batch), Error);
}

TEST(CaptionIndex, IsUniformOverSamplesAndEpochs) {
  std::array<int64_t, 5> over_samples{}, over_epochs{};
  for (int64_t i = 0; i < 10'000; ++i) {
    ++over_samples.at(static_cast<size_t>(caption_index(caption_key(7, 3), i, 5)));
    ++over_epochs.at(static_cast<size_t>(caption_index(caption_key(7, i), 11, 5)));
  }
  // Five standard deviations of a count of 2,000 are 200.
  for (size_t k = 0; k < 5; ++k) {
    EXPECT_NEAR(static_cast<double>(over_samples[k]), 2000, 200);
    EXPECT_NEAR(static_cast<double>(over_epochs[k]), 2000, 200);
  }
  EXPECT_EQ(caption_index(caption_key(7, 3), 5, 1), 0);
  int64_t alike = 0;
  for (int64_t i = 0; i < 1000; ++i) alike += caption_index(caption_key(7, 3), i, 5) == caption_index(caption_key(8, 3), i, 5) ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(alike), 200, 64);
}

TEST_F(CaptionIds, APickKeepsItsCaptions) {
  const auto part = set->pick({4, 1});
  EXPECT_EQ(part->size(), 2);
  EXPECT_TRUE(part->name(0).ends_with("4.ppm"));
  EXPECT_EQ(part->captions(1)[1], "1bb");
  EXPECT_EQ(part->owners(), (std::vector<int64_t>{0, 0, 0, 0, 0, 1, 1}));
  EXPECT_THROW(set->pick({6}), Error);
  EXPECT_THROW(set->pick({}), InputError);
}

}  // namespace
}  // namespace ermoe
