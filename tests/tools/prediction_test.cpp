// Ranking and writing of predictions.
#include "tools/prediction.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ermoe {
namespace {

class Ranking : public ::testing::Test {
 protected:
  Tensor logits(std::vector<float> values, int64_t rows) {
    return Tensor::from<float>(allocator_, {rows, static_cast<int64_t>(values.size()) / rows}, values);
  }
  CachingAllocator allocator_{make_host_source()};
};

TEST_F(Ranking, BestFirstWithProbabilitiesThatSumToOne) {
  const auto ranked = rank_classes(logits({0, 2, 1, 1000, 1000, -1000}, 2), LossKind::cross_entropy, 5);
  ASSERT_EQ(ranked.size(), 2u);
  ASSERT_EQ(ranked[0].size(), 3u);
  EXPECT_EQ(ranked[0][0].index, 1);
  EXPECT_EQ(ranked[0][1].index, 2);
  EXPECT_DOUBLE_EQ(ranked[0][0].probability, std::exp(2.0) / (1 + std::exp(1.0) + std::exp(2.0)));
  EXPECT_NEAR(ranked[0][0].probability + ranked[0][1].probability + ranked[0][2].probability, 1, 1e-15);
  EXPECT_EQ(ranked[1][0].index, 0) << "ties go by index";
  EXPECT_DOUBLE_EQ(ranked[1][1].probability, 0.5);
  EXPECT_DOUBLE_EQ(ranked[1][2].probability, 0);
}

TEST_F(Ranking, SigmoidJudgesEachClassAlone) {
  const auto ranked = rank_classes(logits({0, 3}, 1), LossKind::sigmoid, 1);
  ASSERT_EQ(ranked[0].size(), 1u);
  EXPECT_EQ(ranked[0][0].index, 1);
  EXPECT_DOUBLE_EQ(ranked[0][0].probability, 1 / (1 + std::exp(-3.0)));
}

TEST(PredictionWriter, QuotesForCsv) {
  PredictionWriter writer(PredictionFormat::csv, {"cat", "dog, \"big\""});
  EXPECT_EQ(writer.head(), "file,rank,class,probability\n");
  EXPECT_EQ(writer.entry({"a,b.png", {{1, 0.75}, {0, 0.25}}}), "\"a,b.png\",1,\"dog, \"\"big\"\"\",0.750000\n\"a,b.png\",2,cat,0.250000\n");
  EXPECT_EQ(writer.foot(), "");
}

TEST(PredictionWriter, WritesOneJsonArray) {
  PredictionWriter none(PredictionFormat::json, {"cat"});
  EXPECT_EQ(none.head() + none.foot(), "[]\n");
  PredictionWriter writer(PredictionFormat::json, {"cat"});
  std::string text = writer.head();
  text += writer.entry({"a", {{0, 1}}});
  text += writer.entry({"b\"", {{0, 0.5}}});
  text += writer.foot();
  EXPECT_EQ(text,
            "[\n{\"file\":\"a\",\"predictions\":[{\"class\":\"cat\",\"index\":0,\"probability\":1.0}]},\n"
            "{\"file\":\"b\\\"\",\"predictions\":[{\"class\":\"cat\",\"index\":0,\"probability\":0.5}]}\n]\n");
}

TEST(SearchWriter, HasALineARank) {
  SearchWriter writer(PredictionFormat::csv, SearchDirection::images_of_query);
  EXPECT_EQ(writer.head(), "query,rank,score,file\n");
  EXPECT_EQ(writer.entry("a \"dog\", two", {{"a,b.png", 0.5f}, {"c", -0.25f}}),
            "\"a \"\"dog\"\", two\",1,0.500000,\"a,b.png\"\n\"a \"\"dog\"\", two\",2,-0.250000,c\n");
  EXPECT_EQ(SearchWriter(PredictionFormat::csv, SearchDirection::captions_of_image).head(), "file,rank,score,caption\n");
}

TEST(SearchWriter, WritesOneJsonArray) {
  SearchWriter writer(PredictionFormat::json, SearchDirection::captions_of_image);
  std::string text = writer.head() + writer.foot();
  EXPECT_EQ(text, "[]\n");
  text = writer.head();
  text += writer.entry("a\xff", {{"two dogs", 0.1f}});
  text += writer.entry("b", {{"x", std::nanf("")}});
  text += writer.foot();
  EXPECT_EQ(text,
            "[\n{\"file\":\"a\xef\xbf\xbd\",\"captions\":[{\"caption\":\"two dogs\",\"score\":0.1}]},\n"
            "{\"file\":\"b\",\"captions\":[{\"caption\":\"x\",\"score\":null}]}\n]\n");
}

}  // namespace
}  // namespace ermoe
